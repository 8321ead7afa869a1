"""Waiting for a condition, with a bound and a name for what never came."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")

LOOK_EVERY_S = 0.05


async def until(condition: Callable[[], Awaitable[Found]], what: str, timeout_s: float = 30) -> Found:
    """The first value of the condition that counts as true; fails with `what` when there is none in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        found = await condition()
        if found:
            return found
        assert loop.time() < deadline, f"never happened in {timeout_s} s: {what}"
        await asyncio.sleep(LOOK_EVERY_S)
