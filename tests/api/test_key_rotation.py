"""A key's secret is replaced: the key stays, the old secret opens it for a grace or not at all."""

import asyncio
from typing import Any

import pytest

from shared import key_secrets, keys
from shared.runtime import Runtime
from tests.api.admin import Api, made, opened, refusal, unique, wrong_place
from tests.scene import Scene

INVALID = (401, "Invalid API key")


async def said(runtime: Runtime, key: str) -> tuple[int, Any]:
    """What a process that has not seen the key yet answers it."""
    async with opened(runtime) as fresh:
        answer = await fresh.get("/teams/verify", key=key)
        return answer.status_code, answer.json().get("detail")


async def test_rotation_without_grace_ends_the_old_key_at_once(api: Api, runtime: Runtime):
    team = await api.team()
    name, old = team["team_id"], team["virtual_key"]
    rotated = made(await api.post(f"/teams/{name}/rotate-key"))
    assert sorted(rotated) == ["previous_key_expires_at", "team_id", "virtual_key"]
    assert rotated["virtual_key"] != old
    assert await said(runtime, old) == INVALID
    assert (await said(runtime, rotated["virtual_key"]))[0] == 200
    shown = made(await api.get(f"/teams/{name}"))
    assert shown["virtual_key"] == key_secrets.hint(rotated["virtual_key"])
    assert (await api.get(f"/teams/{name}/keys")).headers["x-total-count"] == "1"


async def test_rotation_with_grace_lets_both_open_one_key(scene: Scene):
    team = await scene.team()
    path = f"/teams/{team.id}/keys"
    key = made(await scene.api.post(path, {"key_alias": unique("alias"), "max_budget": 5, "rpm_limit": 9}))
    rotated = made(await scene.api.post(f"{path}/{key['key_id']}/rotate", {"grace_s": 3600}))
    async with scene.rt.db.statement() as tx:
        old, new = [
            await keys.find(tx, key_secrets.key_hash(secret)) for secret in (key["virtual_key"], rotated["virtual_key"])
        ]
    assert old == new
    assert old is not None
    assert (str(old.id), old.rpm_limit, len(old.budget_ids)) == (key["key_id"], 9, 1)
    read = made(await scene.api.get(f"{path}/{key['key_id']}"))
    assert (read["key_alias"], read["max_budget"]) == (key["key_alias"], 5)
    assert read["key_name"] == key_secrets.hint(rotated["virtual_key"])

    async with scene.later(3599) as rt:
        assert (await said(rt, key["virtual_key"]))[0] == 200
    async with scene.later(3601) as rt:
        assert await said(rt, key["virtual_key"]) == INVALID
        assert (await said(rt, rotated["virtual_key"]))[0] == 200


async def test_graces_overlap_and_end_with_a_rotation_without_one(api: Api, runtime: Runtime):
    team = await api.team()
    path = f"/teams/{team['team_id']}/rotate-key"
    first = team["virtual_key"]
    second = made(await api.post(path, {"grace_s": 600}))["virtual_key"]
    third = made(await api.post(path, {"grace_s": 600}))["virtual_key"]
    assert [(await said(runtime, key))[0] for key in (first, second, third)] == [200, 200, 200]
    fourth = made(await api.post(path, {"grace_s": 0}))["virtual_key"]
    assert [(await said(runtime, key))[0] for key in (first, second, third, fourth)] == [401, 401, 401, 200]


async def test_a_revoked_key_s_old_secrets_end_with_it(api: Api, runtime: Runtime):
    team = (await api.team())["team_id"]
    key = made(await api.post(f"/teams/{team}/keys", {}))
    path = f"/teams/{team}/keys/{key['key_id']}"
    made(await api.post(f"{path}/rotate", {"grace_s": 600}))
    made(await api.send("DELETE", path))
    assert await said(runtime, key["virtual_key"]) == INVALID


async def test_the_team_s_own_key_is_the_one_it_was_made_with(api: Api, runtime: Runtime):
    team = await api.team()
    name = team["team_id"]
    other = made(await api.post(f"/teams/{name}/keys", {}))["virtual_key"]
    assert made(await api.get(f"/teams/{name}"))["virtual_key"] == key_secrets.hint(team["virtual_key"])
    made(await api.post(f"/teams/{name}/rotate-key"))
    assert [(await said(runtime, key))[0] for key in (team["virtual_key"], other)] == [401, 200]


async def test_a_team_whose_keys_are_all_revoked_gets_a_new_one(api: Api, runtime: Runtime):
    name = (await api.team())["team_id"]
    [key] = (await api.get(f"/teams/{name}/keys")).json()
    made(await api.send("DELETE", f"/teams/{name}/keys/{key['key_id']}"))
    assert made(await api.get(f"/teams/{name}"))["virtual_key"] is None
    rotated = made(await api.post(f"/teams/{name}/rotate-key"))
    assert rotated["previous_key_expires_at"] is None
    assert (await said(runtime, rotated["virtual_key"]))[0] == 200


async def test_two_rotations_at_once_leave_one_key(api: Api, runtime: Runtime):
    team = await api.team()
    answers = await asyncio.gather(*(api.post(f"/teams/{team['team_id']}/rotate-key") for _ in range(4)))
    statuses = [(await said(runtime, made(answer)["virtual_key"]))[0] for answer in answers]
    assert sorted(statuses) == [200, 401, 401, 401]
    assert await said(runtime, team["virtual_key"]) == INVALID


@pytest.mark.parametrize("grace_s", [-1, 604_801, "soon"])
async def test_a_grace_is_at_most_a_week(api: Api, grace_s: object):
    name = (await api.team())["team_id"]
    assert wrong_place(await api.post(f"/teams/{name}/rotate-key", {"grace_s": grace_s})) == ["body", "grace_s"]
    assert refusal(await api.post("/teams/nobody/rotate-key")) == (404, "Team 'nobody' not found")
