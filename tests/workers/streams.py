"""Streamed calls of a worker: providers that say what a test wants, and what Redis and Postgres keep of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import orjson

from shared import books, chunks, redis_keys
from shared.calls import Claimed
from shared.chunks import Chunks, End
from shared.states import Outcome
from tests.scene import Scene, Team, answer
from tests.waiting import until
from workers.calls import Calls
from workers.provider import Answer, ProviderError, Sink

Step = Callable[[Sink], Awaitable[Answer]]


class Streams:
    """A provider that streams as told."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)

    async def complete(self, call: Claimed, *, timeout_s: float, sink: Sink | None = None) -> Answer:
        assert sink is not None
        return await self.steps.pop(0)(sink)


def said(word: str, index: int = 0, **delta: Any) -> list[dict[str, Any]]:
    return [{"index": index, "delta": {"content": word, **delta}}]


def saying(*words: str, end: Any = None) -> Step:
    async def step(sink: Sink) -> Answer:
        for word in words:
            await sink.send(said(word))
        if isinstance(end, Exception):
            raise end
        if end is not None:
            await end()
        return answer("".join(words))

    return step


async def goes_on(sink: Sink) -> Answer:
    """Says something and never ends."""
    await sink.send(said("Once upon"))
    await asyncio.Event().wait()
    raise AssertionError


def broken(code: str = "provider_error", **fields: Any) -> ProviderError:
    return ProviderError(code, **{"outcome": Outcome.UNKNOWN, "again": "same", **fields})


async def streamed(scene: Scene, team: Team, *steps: Step) -> tuple[str, UUID, Calls]:
    """A waiting streamed call, and a worker whose provider takes these steps."""
    job_id = (await team.job())["job_id"]
    call_id = UUID(await team.call(job_id))
    async with scene.rt.db.transaction() as tx:
        await tx.exec_driver_sql("update calls set stream = true where id = %s", (call_id,))
    return job_id, call_id, Calls(scene.rt, Streams(*steps), "streaming-worker")


async def run(worker: Calls, call_id: UUID) -> None:
    for call in await worker.claim([call_id]):
        await worker.run(call)


async def begun(scene: Scene, worker: Calls, call_id: UUID) -> tuple[Claimed, asyncio.Task[None]]:
    """The call, and its run once its first chunk is on Redis."""
    [call] = await worker.claim([call_id])
    running = asyncio.create_task(worker.run(call))
    await until(lambda: entries(scene, call_id), "the first chunk is there")
    return call, running


async def entries(scene: Scene, call_id: UUID) -> list[chunks.Entry]:
    found = await scene.rt.redis.xrange(redis_keys.chunks(call_id))
    return [chunks.read(id_, fields) for id_, fields in found]


async def texts(scene: Scene, call_id: UUID) -> list[dict[str, Any]]:
    """All chunks, which must be numbered without a gap."""
    found = [entry for entry in await entries(scene, call_id) if isinstance(entry, Chunks)]
    numbers = [(entry.first, entry.last) for entry in found]
    assert [first for first, _ in numbers] == [1, *(last + 1 for _, last in numbers)][: len(numbers)]
    return [orjson.loads(text) for entry in found for text in entry.texts]


async def end_of(scene: Scene, call_id: UUID) -> End:
    *_, last = await entries(scene, call_id)
    assert isinstance(last, End)
    return last


async def books_hold(scene: Scene) -> None:
    async with scene.rt.db.statement() as tx:
        for area in ("money", "work", "usage"):
            for check in books.CHECKS[area]:
                assert not await books.broken(tx, area, check), check
