"""A team's max_parallel_calls through two worker units: never more at once, all finish, nobody else waits for it."""

import asyncio
from contextlib import suppress

import httpx

from tests.invariants import verify
from tests.stack import Stack
from tests.team import Team

MOST, CALLS = 3, 30


async def running(stack: Stack, team: Team) -> int:
    """The team's calls in progress at this moment."""
    [row] = await stack.sql(
        "select count(*) as n from calls where team_id = %s and state = 'in_progress'", team.team_id
    )
    found: int = row.n
    return found


async def test_calls_beyond_the_limit_wait_and_delay_no_other_team(stack: Stack) -> None:
    team, other = await stack.team(max_parallel_calls=MOST), await stack.team()
    await stack.provider.hold(team.model)
    job = await team.job(*(f"call {n}" for n in range(CALLS)))
    await stack.provider.asked(team.model, MOST, outcome="held")

    answered = await asyncio.gather(*(other.submit(f"call {n}") for n in range(CALLS)))
    for call in answered:
        assert (await other.result(call))["status"] == "completed"
    assert await running(stack, team) == MOST, "the units ran another team's calls meanwhile, and no more of these"
    assert await stack.provider.count(team.model) == MOST

    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(await running(stack, team))

    watching = asyncio.create_task(watch())
    await stack.provider.delay(0.05)
    await stack.provider.release()
    ended = await team.ended(job["job_id"])
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching

    assert (ended["status"], ended["counts"]["completed"]) == ("completed", CALLS)
    assert max(seen) == MOST
    assert await stack.provider.count(team.model) == CALLS
    await verify(stack)


async def test_a_cancelled_job_makes_room_for_the_next(stack: Stack) -> None:
    team = await stack.team(max_parallel_calls=1)
    await stack.provider.hold(team.model)
    first = await team.job("first")
    await stack.provider.asked(team.model, outcome="held")
    second = await team.submit("second")

    assert (await team.client.post(f"/api/jobs/{first['job_id']}/cancel")).status_code == httpx.codes.OK
    await stack.provider.release()
    assert (await team.result(second))["status"] == "completed"
    await verify(stack)
