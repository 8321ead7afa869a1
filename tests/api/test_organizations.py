"""Organizations: made with their default team or not at all."""

import asyncio

import pytest

from tests.api.admin import Api, made, refusal, unique, wrong_place


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
