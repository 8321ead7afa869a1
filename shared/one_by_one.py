"""Work on many rows, where one that cannot be done stops no other."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from shared import log
from shared.db import is_down, ran_out_of_time

logger = log.get(__name__)

Item = TypeVar("Item")


async def each(
    items: Sequence[Item], work: Callable[[Item], Awaitable[int]], *, what: str, name: Callable[[Item], object] = str
) -> int:
    """Work on each; what one of them cannot do is logged and left. Returns the sum of what `work` returned.

    what, name: the work and the item, in the log. Raises what hits all of them: a database that is away.
    """
    total = 0
    for item in items:
        try:
            total += await work(item)
        except Exception as error:
            if _hits_all(error):
                raise
            _tell(error, what, name(item))
    return total


async def together(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Awaitable[int]],
    *,
    what: str,
    name: Callable[[Item], object] = str,
) -> int:
    """Work on all in one go; after an error that one of them may have caused, on each alone."""
    if not items:
        return 0
    try:
        return await work(items)
    except Exception as error:
        if len(items) == 1 or _hits_all(error):
            raise
        _tell(error, what, f"one of {len(items)}")

    async def alone(item: Item) -> int:
        return await work([item])

    return await each(items, alone, what=what, name=name)


def _hits_all(error: Exception) -> bool:
    """A row that somebody holds, or that has too much behind it, runs out of time like all of a slow database do."""
    return is_down(error) and not ran_out_of_time(error)


def _tell(error: Exception, what: str, item: object) -> None:
    exc_info = None if is_down(error) else error
    logger.warning("one_left", work=what, item=str(item), error=type(error).__name__, exc_info=exc_info)
