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


def raise_lost_cancel() -> None:
    """End this task if it was cancelled and does not know: a cancel in the turn of an answer may be lost on its way."""
    this = asyncio.current_task()
    if this is not None and this.cancelling():
        raise asyncio.CancelledError
