"""Postgres stands still: requests are refused after a bounded wait, and all goes on once it runs again."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.invariants import verify
from tests.stack import Stack

BOUND_S = 40


def processes(postmaster: int) -> list[int]:
    """Postgres and its backends."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii").split()
    return [postmaster, *map(int, children)]


@contextmanager
def frozen(postmaster: int) -> Iterator[None]:
    stopped = processes(postmaster)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


async def test_a_frozen_postgres_is_a_503_and_not_a_hang(stack: Stack) -> None:
    team = await stack.team()
    before = await team.submit("accepted before")

    with frozen(stack.servers.postgres.pid):
        async with asyncio.timeout(BOUND_S):
            answers = await asyncio.gather(*(team.client.get("/api/credits/balance") for _ in range(15)))
        async with asyncio.timeout(5):
            assert (await team.client.get("/health")).status_code == httpx.codes.OK
    assert {answer.status_code for answer in answers} == {httpx.codes.SERVICE_UNAVAILABLE}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)

    await stack.ready()
    assert (await team.result(before))["status"] == "completed"
    assert (await team.result(await team.submit("accepted after")))["status"] == "completed"
    await verify(stack)
