"""Organizations: made with their default team or not at all, deleted with it."""

import asyncio

import pytest

from api import new_team
from api.wire.team_bodies import CreateTeam
from shared.runtime import Runtime
from tests.api.admin import Api, made, opened, refusal, unique, wrong_place
from tests.scene import HELLO, Scene, Team
from tests.waiting import until


async def test_organization_comes_with_a_default_team(api: Api):
    group = await api.group()
    name = unique("org")
    body = {
        "organization_id": name,
        "name": "Acme",
        "metadata": {"tier": "gold"},
        "default_team_name": "Acme first",
        "default_team_access_groups": [group["group_name"]],
        "default_team_credits": 250,
    }
    organization = made(await api.post("/organizations/create", body))

    team = organization.pop("default_team")
    assert organization == {
        "organization_id": name,
        "name": "Acme",
        "status": "active",
        "metadata": {"tier": "gold"},
        "team_count": 1,
        "total_credits_allocated": 250,
        "created_at": organization["created_at"],
        "updated_at": organization["updated_at"],
    }
    assert team == {
        "team_id": f"{name}_default",
        "team_alias": "Acme first",
        "virtual_key": team["virtual_key"],
        "callback_secret": team["callback_secret"],
        "access_groups": [group["group_name"]],
        "model_groups": [group["group_name"]],
        "allowed_model_aliases": [],
        "credits_allocated": 250,
    }
    assert team["callback_secret"].startswith("whsec_")
    own = made(await api.get(f"/teams/{name}_default", key=team["virtual_key"]))
    assert own["credits_remaining"] == 250


async def test_organization_reads_with_teams_and_usage(api: Api):
    organization = await api.organization()
    assert organization["default_team"] is None
    name = organization["organization_id"]
    first = await api.team(organization_id=name, credits_allocated=10)
    second = await api.team(organization_id=name, credits_allocated=5)

    found = made(await api.get(f"/organizations/{name}", key=first["virtual_key"]))
    assert found["teams"] == [first["team_id"], second["team_id"]]
    assert (found["team_count"], found["total_credits_allocated"]) == (2, 15)
    assert found["usage_summary"] == {"total_jobs": 0, "total_cost_usd": 0.0}
    assert "virtual_key" not in str(found)
    assert first["virtual_key"] not in str(found)


async def test_other_organizations_are_closed_to_a_team(api: Api):
    team, other = await api.team(), await api.organization()

    answer = await api.get(f"/organizations/{other['organization_id']}", key=team["virtual_key"])
    assert refusal(answer) == (403, "Cannot access a different organization")


@pytest.mark.parametrize("name", ["nobody", "a%00b", "a%20b", "x" * 300])
async def test_unknown_or_malformed_organization_is_404(api: Api, name: str):
    answer = await api.get(f"/organizations/{name}")
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith("' not found")


async def test_of_two_creates_at_once_one_wins(api: Api):
    body = {"organization_id": unique("org"), "name": "Acme"}
    answers = await asyncio.gather(*(api.post("/organizations/create", body) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    refused = next(answer for answer in answers if answer.status_code == 400)
    assert refusal(refused) == (400, f"Organization with ID '{body['organization_id']}' already exists")


async def test_a_missing_group_leaves_no_organization_behind(api: Api):
    body = {"organization_id": unique("org"), "name": "Acme", "default_team_model_groups": ["no-such-group"]}
    answer = await api.post("/organizations/create", body)

    assert refusal(answer) == (404, "Model access group 'no-such-group' not found")
    assert (await api.get(f"/organizations/{body['organization_id']}")).status_code == 404


async def test_a_taken_default_team_leaves_no_organization_behind(api: Api):
    name = unique("org")
    await api.team(team_id=f"{name}_default")
    answer = await api.post("/organizations/create", {"organization_id": name, "name": "Acme"})

    assert refusal(answer) == (400, f"Team '{name}_default' already exists")
    assert (await api.get(f"/organizations/{name}")).status_code == 404


@pytest.mark.parametrize(
    "name", ["", "create", "verify", "aliases", "organization", "a/b", "a b", "ä", "..", "x" * 256]
)
async def test_bad_organization_ids_are_refused(api: Api, name: str):
    answer = await api.post("/organizations/create", {"organization_id": name, "name": "Acme"})
    assert wrong_place(answer) == ["body", "organization_id"]


async def test_a_default_team_id_that_is_too_long_is_refused(api: Api):
    answer = await api.post("/organizations/create", {"organization_id": "x" * 250, "name": "Acme"})
    assert wrong_place(answer) == ["body", "team_id"]


async def test_missing_fields_are_named(api: Api):
    answer = await api.post("/organizations/create", {})
    assert [item["loc"] for item in answer.json()["detail"]] == [["body", "organization_id"], ["body", "name"]]


async def test_organizations_are_listed_newest_first_page_by_page(api: Api):
    ours = [(await api.organization(name=f"Acme {n}"))["organization_id"] for n in range(3)]
    first = await api.get("/organizations?limit=2")
    assert [found["organization_id"] for found in first.json()] == [ours[2], ours[1]]
    assert first.headers["link"] == '</api/organizations?limit=2&offset=2>; rel="next"'
    total = int(first.headers["x-total-count"])
    assert "link" not in (await api.get(f"/organizations?limit=1&offset={total - 1}")).headers
    team = await api.team()
    assert refusal(await api.get("/organizations", key=team["virtual_key"])) == (403, "Admin access required")


async def test_teams_of_an_organization_in_full_for_admins_and_of_itself_for_a_team(api: Api):
    name = (await api.organization())["organization_id"]
    group = (await api.group())["group_name"]
    first = await api.team(organization_id=name, credits_allocated=10, team_alias="One", access_groups=[group])
    second = await api.team(organization_id=name)
    one = {
        "team_id": first["team_id"],
        "team_alias": "One",
        "status": "active",
        "access_groups": [group],
        "credits_allocated": 10,
        "credits_remaining": 10,
    }
    found = made(await api.get(f"/organizations/{name}/teams"))
    assert found["team_details"][0] == one
    assert [team["team_id"] for team in found["team_details"]] == [first["team_id"], second["team_id"]]
    own = made(await api.get(f"/organizations/{name}/teams", key=first["virtual_key"]))
    assert own == {**found, "team_details": [one]}
    assert (own["team_count"], own["teams"]) == (2, [first["team_id"], second["team_id"]])

    other = (await api.organization())["organization_id"]
    closed = await api.get(f"/organizations/{other}/teams", key=first["virtual_key"])
    assert refusal(closed) == (403, "Cannot access a different organization")
    assert refusal(await api.get("/organizations/nobody/teams")) == (404, "Organization 'nobody' not found")


async def test_name_and_metadata_change(api: Api):
    organization = await api.organization(metadata={"a": 1})
    path = f"/organizations/{organization['organization_id']}"
    renamed = made(await api.put(path, {"name": "New"}))
    assert (renamed["name"], renamed["metadata"]) == ("New", {"a": 1})
    changed = made(await api.put(path, {"metadata": {"b": 2}, "name": None}))
    assert (changed["name"], changed["metadata"]) == ("New", {"b": 2})
    assert wrong_place(await api.put(path, {"name": ""})) == ["body", "name"]
    assert refusal(await api.put("/organizations/nobody", {"name": "x"})) == (404, "Organization 'nobody' not found")


@pytest.mark.parametrize(
    ("status", "code", "detail"),
    [
        ("suspended", 403, "Team access is suspended. Please contact support."),
        ("paused", 429, "Team access temporarily paused"),
    ],
)
async def test_a_status_blocks_all_its_teams(api: Api, runtime: Runtime, status: str, code: int, detail: str):
    name = (await api.organization())["organization_id"]
    teams = [await api.team(organization_id=name) for _ in range(2)]
    path = f"/organizations/{name}/status"
    blocked = made(await api.put(path, {"status": status, "reason": "unpaid"}))
    assert blocked == {
        "organization_id": name,
        "status": status,
        "previous_status": "active",
        "updated_at": blocked["updated_at"],
        "reason": "unpaid",
    }
    async with opened(runtime) as fresh:
        for team in teams:
            assert refusal(await fresh.get("/credits/balance", key=team["virtual_key"])) == (code, detail)
    freed = made(await api.put(path, {"status": "active"}))
    assert (freed["previous_status"], freed["reason"]) == (status, None)
    async with opened(runtime) as fresh:
        made(await fresh.get("/credits/balance", key=teams[0]["virtual_key"]))


async def test_a_status_is_one_of_three(api: Api):
    name = (await api.organization())["organization_id"]
    assert wrong_place(await api.put(f"/organizations/{name}/status", {"status": "deleted"})) == ["body", "status"]
    assert wrong_place(await api.put(f"/organizations/{name}/status", {})) == ["body", "status"]
    unknown = await api.put("/organizations/nobody/status", {"status": "paused"})
    assert refusal(unknown) == (404, "Organization 'nobody' not found")


async def test_an_organization_with_teams_is_not_deleted(api: Api):
    name = (await api.organization(create_default_team=True))["organization_id"]
    first, second = [(await api.team(organization_id=name))["team_id"] for _ in range(2)]
    path = f"/organizations/{name}"
    assert refusal(await api.send("DELETE", path)) == (
        400,
        f"Cannot delete organization '{name}' - it still has teams: {first}, {second}",
    )
    assert made(await api.get(path))["teams"] == [f"{name}_default", first, second]
    for team in (first, second):
        made(await api.send("DELETE", f"/teams/{team}"))
    made(await api.send("DELETE", path))


async def test_an_organization_goes_with_its_default_team(scene: Scene):
    scene.live = False
    api = scene.api
    alias = (await api.alias(api_key="sk-provider", pricing_input=1, pricing_output=1))["alias"]
    group = (await api.group(model_aliases=[alias]))["group_name"]
    organization = await api.organization(
        create_default_team=True, default_team_access_groups=[group], default_team_credits=9
    )
    name, default = organization["organization_id"], organization["default_team"]
    team = Team(scene=scene, id=default["team_id"], key=default["virtual_key"], models=(alias,))
    job = await team.job(calls=[{"messages": HELLO}])

    answer = await api.send("DELETE", f"/organizations/{name}")
    assert made(answer) == {"organization_id": name, "message": f"Organization '{name}' deleted successfully"}
    assert made(await api.get(f"/jobs/{job['job_id']}"))["status"] == "cancelled"
    gone = (404, f"Organization '{name}' not found")
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/teams", None),
        ("PUT", "", {"name": "x"}),
        ("PUT", "/status", {"status": "active"}),
        ("DELETE", "", None),
    ):
        assert refusal(await api.send(method, f"/organizations/{name}{path}", body)) == gone
    assert (await api.get(f"/teams/{team.id}")).status_code == 404
    assert name not in {found["organization_id"] for found in (await api.get("/organizations?limit=1000")).json()}
    again = await api.post("/organizations/create", {"organization_id": name, "name": "Again"})
    assert refusal(again) == (400, f"Organization with ID '{name}' already exists")
    late = await api.post("/teams/create", {"organization_id": name, "team_id": unique("team")})
    assert refusal(late) == gone
    async with opened(scene.rt) as fresh:
        assert refusal(await fresh.get("/credits/balance", key=team.key)) == (401, "Invalid API key")


async def test_a_team_made_during_a_deletion_wins_or_is_refused(api: Api):
    for _ in range(5):
        name, team = (await api.organization())["organization_id"], unique("team")
        created, deleted = await asyncio.gather(
            api.post("/teams/create", {"organization_id": name, "team_id": team}),
            api.send("DELETE", f"/organizations/{name}"),
        )
        assert (created.status_code, deleted.status_code) in ((200, 400), (404, 200))


async def test_a_deletion_waits_for_a_team_that_is_being_made(scene: Scene):
    name = (await scene.api.organization())["organization_id"]
    wanted = CreateTeam(organization_id=name, team_id=unique("team"))

    async def waits() -> bool:
        waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        return bool(await scene.rows(waiting))

    async with scene.rt.db.transaction() as tx:
        await new_team.create(scene.rt, tx, wanted, by=None)
        deletion = asyncio.create_task(scene.api.send("DELETE", f"/organizations/{name}"))
        await until(waits, "the deletion to wait", timeout_s=2)
    assert (await deletion).status_code == 400
    made(await scene.api.get(f"/teams/{wanted.team_id}"))
