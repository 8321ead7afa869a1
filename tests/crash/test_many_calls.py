"""Many calls while worker units die and Redis is wiped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.invariants import verify, verify_money
from tests.stack import Stack
from tests.team import Team

CLIENTS, JOBS, CALLS = 20, 5, 5
"""Each client runs its jobs one after the other; 500 calls in all, at most 100 at once."""


async def test_500_calls_end_once_and_are_paid_once_while_workers_die_and_redis_is_emptied(stack: Stack) -> None:
    team = await stack.team()
    hooks = await stack.receiver()
    await team.register(hooks, ["job.completed", "job.failed"])
    await stack.provider.delay(0.3)

    async with breaking(stack):
        jobs = await asyncio.gather(*(client(team, n) for n in range(CLIENTS)))

    await verify(stack, delivered=True)
    ended = [job for of_client in jobs for job in of_client]
    completed = [job for job in ended if job["status"] == "completed"]
    assert sum(job["counts"]["total"] for job in ended) == CLIENTS * JOBS * CALLS
    assert len(completed) > len(ended) // 2
    assert len(await hooks.arrived(len(ended))) == len(ended)
    assert await team.charges() == [1] * len([job for job in completed if not job["counts"]["failed"]])
    assert (await team.balance())["credits_held"] == 0


async def client(team: Team, number: int) -> list[dict[str, Any]]:
    ended = []
    for job in range(JOBS):
        made = await team.job(*(f"client {number} job {job} call {call}" for call in range(CALLS)))
        ended.append(await team.ended(made["job_id"], timeout_s=60))
    return ended


@asynccontextmanager
async def breaking(stack: Stack) -> AsyncIterator[None]:
    """Kill a unit each time so many more requests reached the provider; empty Redis at two of these times."""

    async def at_each_hundred() -> None:
        for hundreds in range(1, 6):
            await stack.provider.asked("client", 90 * hundreds, timeout_s=60)
            units = stack.worker_pids()
            stack.kill_worker_unit(units[hundreds % len(units)] if units else None)
            if hundreds in (2, 4):
                stack.flush_redis()
            await verify_money(stack)

    breaker = asyncio.create_task(at_each_hundred())
    yield
    await breaker
