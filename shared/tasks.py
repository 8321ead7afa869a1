"""Ending background tasks for sure."""

import asyncio
from collections.abc import Iterable

AGAIN_S = 0.1


async def end(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel tasks until they have ended: redis-py can swallow a cancellation that arrives while it connects."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
