"""Virtual keys: what each may do less than its team, and how soon a change of mind works."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from api import key_rules
from api.auth import Authenticator
from shared import key_secrets, keys
from shared.db import Database
from shared.errors import Forbidden, Unauthorized
from shared.runtime import Runtime
from tests.api.admin import Api, made, opened, refusal, unique, wrong_place
from tests.scene import COST_NANOUSD, HELLO, Scene, Team
from tests.waiting import until

INVALID = (401, "Invalid API key")
UNKNOWN_KEY = "/keys/019aa3c2-0000-7000-8000-000000000000"


async def said(runtime: Runtime, key: str) -> tuple[int, Any]:
    """What a process that has not seen the key yet answers it."""
    async with opened(runtime) as fresh:
        answer = await fresh.get("/teams/verify", key=key)
        return answer.status_code, answer.json().get("detail")


async def test_a_key_is_shown_once_and_read_masked(api: Api, runtime: Runtime):
    team = (await api.team())["team_id"]
    sent = {
        "key_alias": unique("alias"),
        "user_id": "ann",
        "models": ["gpt-4"],
        "rpm_limit": 5,
        "tpm_limit": 0,
        "max_parallel_requests": 2,
        "allowed_routes": ["/api/jobs"],
        "max_budget": 1.5,
        "soft_budget": 1,
        "budget_duration": "30d",
        "duration": "2h",
        "metadata": {"a": 1},
    }
    key = made(await api.post(f"/teams/{team}/keys", sent))
    secret = key.pop("virtual_key")
    assert key == {
        **{name: value for name, value in sent.items() if name != "duration"},
        "key_id": key["key_id"],
        "team_id": team,
        "key_name": key_secrets.hint(secret),
        "status": "active",
        "spend": 0.0,
        "budget_spend": 0.0,
        "budget_reset_at": key["budget_reset_at"],
        "blocked": False,
        "expires_at": key["expires_at"],
        "created_by": "admin_key",
        "created_at": key["created_at"],
        "updated_at": key["updated_at"],
    }
    assert key["expires_at"] > key["created_at"]
    read = await api.get(f"/teams/{team}/keys/{key['key_id']}")
    assert made(read) == key
    assert secret not in read.text


async def test_keys_are_listed_newest_first(api: Api):
    team = (await api.team())["team_id"]
    first, second = [made(await api.post(f"/teams/{team}/keys", {}))["key_id"] for _ in range(2)]
    page = await api.get(f"/teams/{team}/keys?limit=2")
    assert [key["key_id"] for key in page.json()] == [second, first]
    assert page.headers["x-total-count"] == "3"
    assert page.headers["link"] == f'</api/teams/{team}/keys?limit=2&offset=2>; rel="next"'
    assert refusal(await api.get("/teams/nobody/keys")) == (404, "Team 'nobody' not found")


async def test_keys_are_for_admins(api: Api):
    team = await api.team()
    for method, path in (("GET", ""), ("POST", ""), ("GET", UNKNOWN_KEY[5:]), ("POST", f"{UNKNOWN_KEY[5:]}/rotate")):
        answer = await api.send(method, f"/teams/{team['team_id']}/keys{path}", key=team["virtual_key"])
        assert refusal(answer) == (403, "Admin access required")


@pytest.mark.parametrize("key_id", [UNKNOWN_KEY[6:], "nothing", "a%00b"])
async def test_an_unknown_key_is_404(api: Api, key_id: str):
    path = f"/teams/{(await api.team())['team_id']}/keys/{key_id}"
    unknown = (404, "Key not found")
    assert refusal(await api.get(path)) == unknown
    assert refusal(await api.send("PATCH", path, {"blocked": True})) == unknown
    assert refusal(await api.send("DELETE", path)) == unknown
    assert refusal(await api.post(f"{path}/rotate")) == unknown


async def test_a_key_of_another_team_is_unknown(api: Api):
    team, other = await api.team(), await api.team()
    key = made(await api.post(f"/teams/{other['team_id']}/keys", {}))
    path = f"/teams/{team['team_id']}/keys/{key['key_id']}"
    for method, below, body in (
        ("GET", "", None),
        ("PATCH", "", {"blocked": True}),
        ("DELETE", "", None),
        ("POST", "/rotate", None),
    ):
        assert refusal(await api.send(method, path + below, body)) == (404, "Key not found")
    made(await api.get("/teams/verify", key=key["virtual_key"]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rpm_limit", -1),
        ("max_parallel_requests", 0),
        ("max_budget", -1),
        ("max_budget", "Infinity"),
        ("duration", "1y"),
        ("budget_duration", "30d"),
        ("soft_budget", 3),
        ("models", ["a b"]),
        ("allowed_routes", ["api/jobs"]),
        ("virtual_key", "abc"),
        ("metadata", []),
    ],
)
async def test_wrong_values_are_refused_at_their_field(api: Api, field: str, value: object):
    team = (await api.team())["team_id"]
    assert wrong_place(await api.post(f"/teams/{team}/keys", {field: value}))[:2] == ["body", field]


async def test_an_alias_is_one_key_s_alone_until_that_is_revoked(api: Api):
    team, alias = (await api.team())["team_id"], unique("alias")
    path = f"/teams/{team}/keys"
    answers = await asyncio.gather(*(api.post(path, {"key_alias": alias}) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400]
    taken = (400, f"Key alias '{alias}' already exists")
    assert {refusal(answer) for answer in answers if answer.status_code == 400} == {taken}
    other = made(await api.post(path, {}))
    assert refusal(await api.send("PATCH", f"{path}/{other['key_id']}", {"key_alias": alias})) == taken

    owner = next(answer.json() for answer in answers if answer.status_code == 200)
    made(await api.send("DELETE", f"{path}/{owner['key_id']}"))
    assert made(await api.send("PATCH", f"{path}/{other['key_id']}", {"key_alias": alias}))["key_alias"] == alias


async def test_an_own_key_is_one_team_s_alone(api: Api):
    own = f"sk-{unique('own')}"
    first, second = (await api.team())["team_id"], (await api.team())["team_id"]
    made(await api.post(f"/teams/{first}/keys", {"virtual_key": own}))
    answer = await api.post(f"/teams/{second}/keys", {"virtual_key": own})
    assert refusal(answer) == (400, "Virtual key already exists")
    assert made(await api.get("/teams/verify", key=own))["team_id"] == first


async def test_what_is_sent_changes_and_null_clears(api: Api):
    team = (await api.team())["team_id"]
    sent = {
        "user_id": "ann",
        "models": ["m"],
        "rpm_limit": 1,
        "max_budget": 2,
        "budget_duration": "1mo",
        "duration": "1h",
    }
    key = made(await api.post(f"/teams/{team}/keys", {**sent, "metadata": {"a": 1}}))
    path = f"/teams/{team}/keys/{key['key_id']}"
    changed = made(await api.send("PATCH", path, {"tpm_limit": 7, "soft_budget": 1}))
    assert (changed["tpm_limit"], changed["soft_budget"], changed["max_budget"], changed["user_id"]) == (7, 1, 2, "ann")
    cleared = made(await api.send("PATCH", path, dict.fromkeys([*sent, "metadata", "blocked"])))
    for name in ("user_id", "models", "rpm_limit", "max_budget", "soft_budget", "budget_duration", "expires_at"):
        assert cleared[name] is None, name
    assert (cleared["metadata"], cleared["tpm_limit"], cleared["status"]) == ({"a": 1}, 7, "active")
    assert wrong_place(await api.send("PATCH", path, {"soft_budget": 1})) == ["body", "soft_budget"]


async def test_a_key_expires(scene: Scene):
    team = await scene.team()
    key = made(await scene.api.post(f"/teams/{team.id}/keys", {"duration": "30s"}))
    path = f"/teams/{team.id}/keys/{key['key_id']}"
    async with scene.later(31) as rt, opened(rt) as later:
        assert made(await later.get(path))["status"] == "expired"
    await scene.rows("update virtual_keys set expires_at = app_now() where id = :id returning id", id=key["key_id"])
    assert await said(scene.rt, key["virtual_key"]) == (401, "API key has expired")


async def test_a_blocked_key_works_again_when_it_is_unblocked(api: Api, runtime: Runtime):
    team = (await api.team())["team_id"]
    key = made(await api.post(f"/teams/{team}/keys", {}))
    path = f"/teams/{team}/keys/{key['key_id']}"
    assert made(await api.send("PATCH", path, {"blocked": True}))["status"] == "blocked"
    assert await said(runtime, key["virtual_key"]) == (401, "API key is blocked")
    assert made(await api.send("PATCH", path, {"blocked": False}))["status"] == "active"
    assert (await said(runtime, key["virtual_key"]))[0] == 200


async def test_a_revoked_key_is_kept_on_record(api: Api, runtime: Runtime):
    team = (await api.team())["team_id"]
    key = made(await api.post(f"/teams/{team}/keys", {}))
    path = f"/teams/{team}/keys/{key['key_id']}"
    assert made(await api.send("DELETE", path)) == {"key_id": key["key_id"], "message": "Key revoked successfully"}
    assert await said(runtime, key["virtual_key"]) == INVALID
    assert made(await api.get(path))["status"] == "revoked"
    for method, below, body in (("DELETE", "", None), ("PATCH", "", {"blocked": False}), ("POST", "/rotate", None)):
        assert refusal(await api.send(method, path + below, body)) == (404, "Key not found")


@pytest.mark.parametrize("change", ["revoke", "block", "rotate", "delete"])
async def test_every_process_sees_a_change_within_a_second(scene: Scene, change: str):
    """A second Authenticator, on connections of its own, that has just used the key."""
    team = await scene.team()
    key = made(await scene.api.post(f"/teams/{team.id}/keys", {}))
    path = f"/teams/{team.id}/keys/{key['key_id']}"
    headers = [(b"authorization", f"Bearer {key['virtual_key']}".encode())]
    request = Request({"type": "http", "method": "GET", "path": "/api/x", "headers": headers})
    db = Database(scene.rt.settings.database_url, pool=2, name="waybill-second")
    second = Authenticator(scene.rt.settings, db)
    await second.caller(request, "team")
    loop = asyncio.get_running_loop()
    remembered_from = loop.time()
    match change:
        case "revoke":
            made(await scene.api.send("DELETE", path))
        case "block":
            made(await scene.api.send("PATCH", path, {"blocked": True}))
        case "rotate":
            made(await scene.api.post(f"{path}/rotate"))
        case _:
            made(await scene.api.send("DELETE", f"/teams/{team.id}"))

    async def is_refused() -> bool:
        try:
            await second.caller(request, "team")
        except Unauthorized:
            return True
        assert loop.time() < remembered_from + 1.5, "the key is still taken"
        return False

    await until(is_refused, "the key to be refused", timeout_s=5)
    await db.close()


async def test_a_key_s_spend_is_what_its_calls_cost(scene: Scene):
    scene.live = False
    team = await scene.team()
    key = made(await scene.api.post(f"/teams/{team.id}/keys", {"max_budget": 1}))
    path = f"/teams/{team.id}/keys/{key['key_id']}"
    with_key = Team(scene=scene, id=team.id, key=key["virtual_key"], models=team.models)
    for caller in (with_key, team):
        job = await caller.job(calls=[{"messages": HELLO}])
        await scene.work_on(job["calls"][0]["call_id"])
    read = made(await scene.api.get(path))
    assert read["spend"] == read["budget_spend"] == COST_NANOUSD / 10**9


@pytest.mark.parametrize(
    ("routes", "path", "allowed"),
    [
        (None, "/api/jobs/create", True),
        ([], "/api/jobs/create", False),
        (["/api/jobs"], "/api/jobs", True),
        (["/api/jobs"], "/api/jobs/create", True),
        (["/api/jobs/"], "/api/jobs/create", True),
        (["/api/jobs"], "/api/jobsx", False),
        (["/api/credits", "/api/jobs/create"], "/api/jobs/create", True),
        (["/api/jobs/create"], "/api/jobs", False),
        (["/"], "/api/jobs", True),
        (["/v1"], "/olla/litellm/v1/models", True),
        (["/v1/models"], "/olla/litellm/models/x", True),
        (["/v1/models"], "/v1/embeddings", False),
        (["/key/info"], "/olla/litellm/key/info", True),
        (["/*"], "/api/jobs", True),
        (["//"], "/api/jobs", False),
        (["/api/v1"], "/api/jobs", True),
        (["/api/v1/*"], "/api/v1/jobs", True),
        (["/api/v1"], "/v1/models", False),
        (["/olla/litellm"], "/v1/models", True),
        (["/olla/litellm/*"], "/olla/litellm/chat/completions", True),
        (["/olla/litellm/"], "/olla/litellm/key/info", True),
        (["/olla"], "/spend/calculate", True),
        (["/olla/litellm"], "/api/jobs", False),
        (["/olla/litellm/*"], "/api/v1/credits/balance", False),
        (["/olla/litellm/"], "/api/jobs/create", False),
        (["/olla/litellm/api"], "/api/jobs", False),
    ],
)
async def test_allowed_routes_are_paths_and_all_below_them(
    scene: Scene, routes: list[str] | None, path: str, allowed: bool
):
    team = await scene.team()
    key = made(await scene.api.post(f"/teams/{team.id}/keys", {"allowed_routes": routes}))
    async with scene.rt.db.statement() as tx:
        found = await keys.find(tx, key_secrets.key_hash(key["virtual_key"]))
    assert found is not None
    request = Request({"type": "http", "method": "GET", "path": path, "headers": []})
    if allowed:
        key_rules.check_route(found, request)
    else:
        with pytest.raises(Forbidden):
            key_rules.check_route(found, request)


async def test_no_secret_is_kept_in_the_audit_log(scene: Scene):
    team = await scene.team()
    own = f"sk-{unique('secret')}"
    key = made(await scene.api.post(f"/teams/{team.id}/keys", {"virtual_key": own, "user_id": "ann"}))
    rotated = made(await scene.api.post(f"/teams/{team.id}/keys/{key['key_id']}/rotate"))
    lines = await scene.rows(
        "select action, details::text as details from audit_log where resource_id = :id order by id", id=key["key_id"]
    )
    assert [line.action for line in lines] == ["created_key", "rotated_key"]
    assert "ann" in lines[0].details
    for secret in (own, rotated["virtual_key"]):
        assert all(secret not in line.details for line in lines)


async def test_a_key_is_refused_on_routes_it_may_not_use(scene: Scene):
    team = await scene.team()
    key = made(await scene.api.post(f"/teams/{team.id}/keys", {"allowed_routes": ["/api/credits"]}))
    narrow = Team(scene=scene, id=team.id, key=key["virtual_key"], models=team.models)
    assert (await narrow.get("/credits/balance")).status_code == 200
    refused = await narrow.post("/jobs/create", {"team_id": team.id, "job_type": "t"})
    assert refusal(refused) == (403, "API key is not allowed to use this route")
