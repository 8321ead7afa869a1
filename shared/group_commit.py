"""Group commit: what arrives while one transaction runs shares the next one; each waiter is released by its commit."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

COMMIT_TIMEOUT_S = 20.0


class GroupCommit(Generic[Item, Result]):
    """Collects items and hands them to `commit` in groups, one group at a time, in order of arrival.

    commit: takes up to `most` items, commits one transaction, returns one result per item in the same order; a result
        that is an exception is raised to that item's waiter alone. When commit raises, every waiter of the group
        gets it. After COMMIT_TIMEOUT_S it is ended: they get TimeoutError.
    """

    def __init__(
        self, commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]], *, most: int = 256
    ) -> None:
        self._commit = commit
        self._most = most
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> Result:
        """The item's result, once the group that carries it is committed."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await future

    async def _flush(self) -> None:
        await asyncio.sleep(0)
        while self._waiting:
            group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                results = await self._committed([item for item, _ in group])
            except BaseException:
                for _, future in group:
                    future.cancel()
                raise
            for (_, future), result in zip(group, results, strict=True):
                _release(future, result)

    async def _committed(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                return await self._commit(items)
        except Exception as error:  # noqa: BLE001 - it belongs to the waiters
            return [error] * len(items)


def _release(future: "asyncio.Future[Result]", result: "Result | Exception") -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
