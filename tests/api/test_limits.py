"""Limits as a client meets them: what is counted, what a refusal says, and that it uses nothing."""

import pytest

from tests.api.admin import refusal
from tests.api.gateway import ask
from tests.scene import HELLO, Scene, Team

PREFIXES = ("x-ratelimit", "ratelimit")


async def with_key_limits(scene: Scene, team: Team, **limits: int) -> Team:
    """The same team, its key limited before it is used."""
    for name, value in limits.items():
        statement = f"update virtual_keys set {name} = :value where team_id = :id returning id"
        await scene.rows(statement, value=value, id=team.id)
    return team


async def left(scene: Scene, team: Team) -> int:
    """Requests the team has left, after the one that this takes."""
    made = await team.post("/jobs/create", {"team_id": team.id, "job_type": "test"})
    assert made.status_code == 200, made.text
    return int(made.headers["X-RateLimit-Remaining"])


async def test_jobs_and_calls_are_counted_reads_and_endings_are_not(scene: Scene):
    team = await scene.team(rpm_limit=100)
    job_id = (await team.job())["job_id"]
    call = await team.submit(job_id)
    await scene.work_on(call.json()["call_id"])
    several = await team.post(
        "/jobs/create", {"team_id": team.id, "job_type": "test", "calls": [{"messages": HELLO}] * 5}
    )
    for answer in (await team.get(f"/jobs/{job_id}"), await team.complete(job_id)):
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith(PREFIXES)]

    assert call.headers["X-RateLimit-Remaining"] == "98"
    assert several.headers["X-RateLimit-Remaining"] == "93"
    assert await left(scene, team) == 92


async def test_a_repeat_of_a_key_is_not_counted(scene: Scene):
    team = await scene.team(rpm_limit=10)
    body = {"team_id": team.id, "job_type": "test"}
    first, again = [await team.post("/jobs/create", body, Idempotency_Key="k-1") for _ in range(2)]

    assert first.headers["X-RateLimit-Remaining"] == "9"
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await left(scene, team) == 8


async def test_both_limits_of_team_and_key_stand_on_the_answer(scene: Scene):
    team = await with_key_limits(scene, await scene.team(rpm_limit=10, tpm_limit=90_000), rpm_limit=4, tpm_limit=50_000)
    made = await team.post("/jobs/create", {"team_id": team.id, "job_type": "test"})

    assert made.headers["RateLimit-Policy"] == (
        '"team-rpm";q=10;w=60, "team-tpm";q=90000;w=60;qu="tokens", '
        '"key-rpm";q=4;w=60, "key-tpm";q=50000;w=60;qu="tokens"'
    )
    assert (made.headers["X-RateLimit-Limit"], made.headers["X-RateLimit-Remaining"]) == ("4", "3")
    assert made.headers["RateLimit"] == '"key-rpm";r=3;t=60'


async def test_a_call_over_the_keys_tokens_is_refused_as_such(scene: Scene):
    team = await with_key_limits(scene, await scene.team(), tpm_limit=100)
    job_id = (await team.job())["job_id"]
    refused = await team.submit(job_id, max_tokens=1000)

    assert refusal(refused) == (429, "Rate limit exceeded")
    assert refused.headers["rate_limit_type"] == "tokens"
    assert refused.headers["RateLimit"].startswith('"key-tpm";r=100;t=')
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await team.submit(job_id, max_tokens=10)).status_code == 202


@pytest.mark.parametrize(
    ("terms", "status", "detail"),
    [
        ({"credits": 0}, 403, "Insufficient credits"),
        ({"max_queued_calls": 0}, 429, "Queue limit exceeded"),
        ({"max_queued_calls": 1}, 429, "Queue limit exceeded"),
    ],
    ids=["credits", "no queue", "full queue"],
)
async def test_what_is_refused_later_is_given_back_to_team_and_key(scene: Scene, terms, status: int, detail: str):
    scene.live = False
    team = await with_key_limits(scene, await scene.team(rpm_limit=10, **terms), rpm_limit=10)
    body = {"team_id": team.id, "job_type": "test", "calls": [{"messages": HELLO}] * 2}
    refused = await team.post("/jobs/create", body)

    assert refusal(refused) == (status, detail)
    assert "rate_limit_type" not in refused.headers
    assert refused.headers["RateLimit-Policy"] == '"team-rpm";q=10;w=60, "key-rpm";q=10;w=60'
    assert refused.headers["X-RateLimit-Remaining"] == "10"
    if status == 429:
        assert int(refused.headers["Retry-After"]) >= 1
    assert await scene.rows("select id from jobs where team_id = :id", id=team.id) == []
    assert await left(scene, team) == 9


async def test_who_cannot_pay_reads_his_limits_on_the_gateway_too(scene: Scene):
    refused = await ask(await scene.team(credits=0, rpm_limit=10))

    assert refused.status_code == 402
    assert refused.headers["X-RateLimit-Remaining"] == "10"
    assert refused.headers["x-ratelimit-remaining-requests"] == "10"


async def test_a_team_without_limits_gets_no_such_headers(scene: Scene):
    team = await scene.team()
    made = await team.post("/jobs/create", {"team_id": team.id, "job_type": "test"})
    assert not [name for name in made.headers if name.startswith(PREFIXES)]


@pytest.mark.parametrize("owner", ["team", "key"])
async def test_a_call_that_ended_before_it_ran_gives_its_tokens_back(scene: Scene, owner: str):
    scene.live = False
    limit = {"tpm_limit": 1000}
    team = await scene.team(**(limit if owner == "team" else {}))
    team = team if owner == "team" else await with_key_limits(scene, team, **limit)
    job_id = (await team.job())["job_id"]
    wanted = {"max_tokens": 900}
    call_id = await team.call(job_id, **wanted)
    assert (await team.submit(job_id, **wanted)).status_code == 429
    await team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")
    await team.call(job_id, **wanted)
    await team.post(f"/jobs/{job_id}/cancel")
    assert (await team.submit((await team.job())["job_id"], **wanted)).status_code == 202
