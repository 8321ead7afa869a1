"""What a key is narrowed to holds for every call it brings, by the job routes and by the gateway's alike."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests import scene as scenes
from tests.api.admin import made
from tests.api.gateway_keys import Keys
from tests.scene import COST_NANOUSD, HELLO, Scene, Team

WAYS = ["job", "gateway"]
MOST_NANOUSD = 11 * 10_000 + 300 * 30_000
"""What a call may cost: it is 11 tokens long and may be answered by 300."""


async def asked(scene: Scene, way: str, team: Team, key: dict[str, Any], **fields: Any) -> httpx.Response:
    """The answer to a question that this key asks."""
    body = {"model": team.models[0], "messages": HELLO, "max_tokens": 300, **fields}
    if way == "job":
        job = {"team_id": team.id, "job_type": "t", "calls": [body]}
        return await replace(team, scene=scene, key=key["key"]).post("/jobs/create", job)
    headers = {"Authorization": f"Bearer {key['key']}"}
    return await scene.client.post("/v1/chat/completions", json=body, headers=headers)


def status(answer: httpx.Response) -> int:
    """The status; a call is accepted by both in words of their own."""
    return 200 if answer.status_code == 202 else answer.status_code


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_narrower_than_its_team_is_refused(scene: Scene, way: str):
    gateway = Keys(scene.api)
    team = await scene.team(models=2)
    out_of_money = 402 if way == "gateway" else 403
    for fields, refused in (
        ({}, 200),
        ({"models": [team.models[0]]}, 200),
        ({"models": [team.models[1]]}, 403),
        ({"rpm_limit": 0}, 429),
        ({"tpm_limit": 0}, 429),
        ({"tpm_limit": 310}, 429),
        ({"max_parallel_requests": 0}, 429),
        ({"max_parallel_requests": 1, "rpm_limit": 1, "tpm_limit": 311}, 200),
        ({"max_budget": 0}, out_of_money),
        ({"max_budget": (MOST_NANOUSD - 1) / 10**9}, out_of_money),
        ({"max_budget": MOST_NANOUSD / 10**9}, 200),
        ({"soft_budget": 0, "budget_duration": "30d"}, 200),
        ({"blocked": True}, 401),
        ({"key_type": "management"}, 403),
        ({"key_type": "read_only"}, 403),
        ({"key_type": "llm_api"}, 200),
        ({"allowed_routes": ["/v1/embeddings"]}, 403),
        ({"allowed_routes": ["/v1/chat/completions", "/api/jobs/create"]}, 200),
    ):
        key = await gateway.generate(team_id=team.id, **fields)
        answer = await asked(scene, way, team, key)
        assert status(answer) == refused, (fields, answer.text)
        assert refused != 429 or int(answer.headers["retry-after"]) >= 1
    key = await gateway.generate(team_id=team.id, aliases={"mine": team.models[1]}, models=[team.models[1]])
    assert status(await asked(scene, way, team, key, model="mine")) == 200
    made_of = "select candidates from calls where team_id = :id and model = 'mine'"
    assert [row.candidates for row in await scene.rows(made_of, id=team.id)] == [[team.models[1]]]
    assert status(await asked(scene, way, team, key, model=team.models[0])) == 403


@pytest.mark.parametrize("way", WAYS)
async def test_a_change_of_a_key_counts_from_the_next_request(scene: Scene, way: str):
    gateway = Keys(scene.api)
    team = await scene.team()
    key = await gateway.generate(team_id=team.id)
    assert status(await asked(scene, way, team, key)) == 200
    for fields, refused in (
        ({"rpm_limit": 0}, 429),
        ({"rpm_limit": None, "duration": "30s"}, 200),
        ({"blocked": True}, 401),
        ({"blocked": False, "models": ["another"]}, 403),
        ({"models": []}, 200),
    ):
        made(await gateway.post("/key/update", {"key": key["token"], **fields}))
        assert status(await asked(scene, way, team, key)) == refused, fields
    made(await gateway.post("/key/delete", {"keys": [key["token"]]}))
    assert status(await asked(scene, way, team, key)) == 401


@pytest.mark.parametrize("way", WAYS)
async def test_a_budget_is_used_up_until_its_window_ends(scene: Scene, way: str):
    gateway = Keys(scene.api)
    team = await scene.team()
    terms = {"max_budget": COST_NANOUSD / 10**9, "budget_duration": "1h", "max_parallel_requests": 1}
    key = await gateway.generate(team_id=team.id, **terms)
    first = await asked(scene, way, team, key)
    assert status(first) == 200
    if way == "job":
        await team.get(f"/jobs/{first.json()['job_id']}?wait=5")
    assert (await gateway.info(key["token"]))["spend"] == COST_NANOUSD / 10**9
    again = await asked(scene, way, team, key)
    assert again.status_code == (402 if way == "gateway" else 403)
    assert again.headers.get("x-should-retry") == ("false" if way == "gateway" else None)
    async with scene.later(3601) as rt, scenes.opened(rt) as later:
        later.live = True
        assert status(await asked(later, way, team, key)) == 200
    info = await gateway.info(key["token"])
    assert (info["spend"], info["max_budget"]) == (2 * COST_NANOUSD / 10**9, COST_NANOUSD / 10**9)
