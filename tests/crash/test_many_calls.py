"""Many calls while worker units die and Redis is wiped; the long form breaks everything there is, at random."""

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest

from tests import batches
from tests.batches import files_of, line
from tests.hooks import Hooks
from tests.invariants import verify, verify_money
from tests.stack import FreshStacks, Stack
from tests.team import Team, accepted
from tests.waiting import until

CLIENTS, JOBS, CALLS = 20, 5, 5
"""Each client runs its jobs one after the other; 500 calls in all, at most 100 at once."""

CHAOS_CALLS, CHAOS_LINES = 5000, 2000
PAST_THE_LEASE_S = 3.0
BETWEEN_FAULTS_S = 2.0

Job = dict[str, Any]


async def test_500_calls_end_once_and_are_paid_once_while_workers_die_and_redis_is_emptied(stack: Stack) -> None:
    team = await stack.team()
    hooks = await listening(stack, team)
    await stack.provider.delay(0.3)

    async with asyncio.TaskGroup() as group:
        group.create_task(killing_units(stack))
        clients = [group.create_task(run_jobs(team, number, JOBS)) for number in range(CLIENTS)]

    ended = [job for client in clients for job in client.result()]
    assert sum(job["counts"]["total"] for job in ended) == CLIENTS * JOBS * CALLS
    await agree(stack, team, hooks, ended)


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_thousands_of_calls_end_once_whatever_breaks(fresh_stack: FreshStacks) -> None:
    """CHAOS_SEED=n in the environment repeats the faults of a run; their order against the calls is never the same."""
    stack = await fresh_stack(BATCH_WORKERS="1")
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(2**32))
    logging.getLogger(__name__).warning("CHAOS_SEED=%d", seed)
    team = await stack.team(credits_allocated=CHAOS_CALLS)
    hooks = await listening(stack, team)
    await stack.provider.delay(0.2)
    await stack.provider.script(*provider_faults(), match="client 1", repeat=True)

    breaker = asyncio.create_task(breaking_at_random(stack, random.Random(seed)))
    jobs = CHAOS_CALLS // CLIENTS // CALLS
    batch, listener = asyncio.create_task(run_batch(stack)), asyncio.create_task(looking_often(hooks))
    ended = await asyncio.gather(*(run_jobs(team, number, jobs, timeout_s=300) for number in range(CLIENTS)))
    await batch
    for task in (breaker, listener):
        task.cancel()
    await asyncio.gather(breaker, listener, return_exceptions=True)
    await stack.restore()

    await agree(stack, team, hooks, [job for client in ended for job in client])


async def listening(stack: Stack, team: Team) -> Hooks:
    hooks = await stack.receiver()
    await team.register(hooks, ["job.completed", "job.failed"])
    return hooks


async def agree(stack: Stack, team: Team, hooks: Hooks, ended: list[Job]) -> None:
    """Rows, provider, client, ledger and receiver tell the same story, and it is mostly one of success."""
    await verify(stack, delivered=True, timeout_s=60)
    paid = [job for job in ended if job["credit_applied"]]
    assert len(paid) >= 0.8 * len(ended)
    told = {event["job_id"]: event["data"]["status"] for event in await hooks.arrived(len(ended))}
    assert {job["job_id"]: job["status"] for job in ended}.items() <= told.items()
    balance, charges = await team.balance(), await team.charges()
    assert set(charges) == {1}
    assert (balance["credits_used"], balance["credits_held"]) == (len(charges), 0)


async def run_jobs(team: Team, number: int, jobs: int, *, timeout_s: float = 60) -> list[Job]:
    """One job after the other; refused for a moment, it comes again."""
    ended = []
    for job in range(jobs):
        calls = [team.call(f"client {number} job {job} call {call}") for call in range(CALLS)]
        body = {"team_id": team.team_id, "job_type": "test", "calls": calls}
        answer = await team.client.post("/api/jobs/create", json=body)
        while answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            await asyncio.sleep(int(answer.headers["Retry-After"]))
            answer = await team.client.post("/api/jobs/create", json=body)
        ended.append(await team.ended(accepted(answer)["job_id"], timeout_s))
    return ended


async def run_batch(stack: Stack) -> None:
    """A batch of another team beside them: every line is in one of its files once, and paid once if it succeeded."""
    team = await stack.team(credits_allocated=CHAOS_LINES)
    lines = [line(team, f"n{n}", f"line {n}") for n in range(CHAOS_LINES)]
    made = await until(lambda: submitted(team, lines), "a batch is taken", 60)
    batch = await batches.ended(team, made["id"], 600)
    output, errors = await files_of(team, batch)
    assert set(output) | set(errors) == {each["custom_id"] for each in lines}
    assert len(output) >= 0.9 * len(lines)
    assert sum(await team.charges()) == len(output)


async def looking_often(hooks: Hooks) -> None:
    """At what arrived, before its signature is too old."""
    while True:
        await asyncio.sleep(PAST_THE_LEASE_S)
        hooks.deliveries()


async def submitted(team: Team, lines: Sequence[batches.Line]) -> dict[str, Any] | None:
    """The one new batch, however often it is asked for; None when something was away just then."""
    asked = [{"custom_id": each["custom_id"], "body": each["body"]} for each in lines]
    body = {"requests": asked, "endpoint": batches.CHAT, "completion_window": "24h"}
    try:
        answer = await team.client.post("/v1/batches", json=body, headers={"Idempotency-Key": "chaos"})
    except httpx.TransportError:
        return None
    return accepted(answer) if answer.status_code == httpx.codes.OK else None


async def killing_units(stack: Stack) -> None:
    """A unit dies each time 90 more requests reached the provider; Redis is emptied at two of these times."""
    for death in range(1, 6):
        await stack.provider.asked("client", 90 * death, timeout_s=60)
        units = stack.worker_pids()
        stack.kill_worker_unit(units[death % len(units)])
        if death in (2, 4):
            stack.flush_redis()
        await verify_money(stack)


def provider_faults() -> list[dict[str, Any]]:
    """What a tenth of the clients meets, over and over."""
    faults = [{"fault": "status", "status": status} for status in (500, 429, 503)]
    ok = {"fault": "ok"}
    return [*faults, *[ok] * 40, {"fault": "reset"}, *[ok] * 40, {"fault": "garbage"}, *[ok] * 40]


async def breaking_at_random(stack: Stack, dice: random.Random) -> None:
    """One fault after the other until cancelled."""

    async def kill_unit() -> None:
        stack.kill_worker_unit(dice.choice(stack.worker_pids()))

    async def freeze_unit() -> None:
        frozen = dice.choice(stack.worker_pids())
        stack.freeze(frozen)
        await asyncio.sleep(PAST_THE_LEASE_S)
        stack.thaw(frozen)

    async def empty_redis() -> None:
        stack.flush_redis()

    async def restart_redis() -> None:
        stack.kill_redis()
        await asyncio.sleep(1)
        await stack.start_redis()

    async def restart_timer() -> None:
        stack.timer.kill()
        stack.timer.start()

    faults: list[Callable[[], Awaitable[None]]] = [
        *[kill_unit] * 6, *[freeze_unit] * 3, empty_redis, restart_redis, restart_timer, stack.restart_postgres,
    ]  # fmt: skip
    while True:
        await asyncio.sleep(dice.uniform(0, 2 * BETWEEN_FAULTS_S))
        if len(stack.worker_pids()) == stack.units:
            await dice.choice(faults)()
