"""Streaming: what a provider says goes to the call's chunks on Redis while it comes, and to nobody twice.

provider -> Relay (one per attempt: makes chunks, keeps them all) -> Chunkwriter (one per process) -> Redis -> api

Before the first chunk is written `attempts.first_chunk_at` is committed: from then on the call is never tried again.
The worker waits for no reader, and Redis away or wiped stops no call: what is not there yet is written when it is back.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import redis

from shared import attempts, chunks, log, money, redis_keys
from shared.calls import Claimed
from shared.chunks import Chunks, End
from shared.closing import Report, Usage
from shared.db import is_down
from shared.estimate import BYTES_PER_TOKEN
from shared.failures import message
from shared.group_commit import GroupCommit
from shared.runtime import Runtime
from shared.states import CallState, Endpoint
from workers.pool import Fence

logger = log.get(__name__)

PACE_S = 0.010
"""Chunks that come faster than this share a write; the first of a stream does not wait."""
PAUSE_S = 0.2
"""After Redis or Postgres failed."""
END_S = 5.0
"""How long a finished call waits for Redis to take its end; the stored result is there all the same."""
MOST_BYTES = 16 * 1024 * 1024
"""A longer answer is broken off: no model says so much, and all of it is kept until the end."""

NOT_ABOVE = "equal or smaller"
"""In Redis's words, an id that is not above the last one of the stream."""

PREFIX = {Endpoint.CHAT: "chatcmpl", Endpoint.COMPLETION: "cmpl"}
OBJECT = {Endpoint.CHAT: "chat.completion.chunk", Endpoint.COMPLETION: "text_completion"}

Stop = Callable[[Fence, str], None]


class Relay:
    """The stream of one attempt; a `Sink` for its provider."""

    def __init__(self, call: Claimed, writer: "Chunkwriter") -> None:
        self.call = call
        self.texts: list[bytes] = []
        self.written = 0
        """How many of them are on Redis."""
        self.end: End | None = None
        self.ended: asyncio.Event = asyncio.Event()
        self.has_begun = False
        self.is_stale = False
        """A later attempt writes this stream now."""
        self.said_bytes = 0
        self._size = 0
        self._writer = writer
        self._endpoint = Endpoint(call.endpoint)
        head = {
            "id": f"{PREFIX[self._endpoint]}-{call.id.hex}",
            "object": OBJECT[self._endpoint],
            "created": int(call.created_at.timestamp()),
            "model": call.model,
        }
        self._head = orjson.dumps(head)[:-1] + b',"choices":'

    @property
    def said_tokens(self) -> int:
        """About how many tokens the provider has said."""
        return -(-self.said_bytes // BYTES_PER_TOKEN)

    async def send(self, choices: Sequence[dict[str, Any]]) -> None:
        """Pass on what a provider chunk said. Raises CancelledError when the call is no longer this worker's."""
        text = self._chunk([{**choice, "finish_reason": None} for choice in choices])
        if not self.has_begun:
            await self._writer.begin(self)
        self.texts.append(text)
        self.said_bytes += sum(map(_said, choices))
        self._size += len(text)
        self._writer.wake(self)
        if self._size > MOST_BYTES:
            self._writer.stop(self.call.fence, "oversized")
            raise asyncio.CancelledError

    def finishes(self, response: str) -> list[bytes]:
        """The finish chunks of a stored answer: one per choice."""
        return [self._chunk([self._finish(choice)]) for choice in orjson.loads(response)["choices"]]

    def openings(self, response: str) -> list[bytes]:
        """A chunk per choice that says nothing: for an answer without any words."""
        if self._endpoint == Endpoint.COMPLETION:
            return []
        found = orjson.loads(response)["choices"]
        delta = {"role": "assistant", "content": ""}
        return [self._chunk([{"index": one["index"], "delta": delta, "finish_reason": None}]) for one in found]

    def _finish(self, choice: dict[str, Any]) -> dict[str, Any]:
        ended = {"finish_reason": choice["finish_reason"]}
        if self._endpoint == Endpoint.COMPLETION:
            return {"index": choice["index"], "text": "", "logprobs": None, **ended}
        return {"index": choice["index"], "delta": {}, **ended}

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return self._head + orjson.dumps(choices) + b"}"


class Chunkwriter:
    """Writes the chunks of all streams of this process, a pipeline at a time; marks beginnings in group commits."""

    def __init__(self, rt: Runtime, stop: Stop) -> None:
        self._rt = rt
        self.stop = stop
        self._begins: GroupCommit[Fence, bool] = GroupCommit(self._begin_group)
        self._waiting: dict[Relay, None] = {}
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self, relay: Relay) -> None:
        """Put on record that the attempt delivers. Raises CancelledError when it no longer holds its call."""
        while True:
            try:
                holds = await self._begins.add(relay.call.fence)
            except Exception as error:
                if not is_down(error):
                    raise
                logger.warning("stream_waits", call_id=str(relay.call.id), error=type(error).__name__)
                await asyncio.sleep(PAUSE_S)
            else:
                break
        if not holds:
            self.stop(relay.call.fence, "lost")
            raise asyncio.CancelledError
        relay.has_begun = True
        self._urgent.set()

    def wake(self, relay: Relay) -> None:
        """The relay has chunks, or its end, to write."""
        if relay.is_stale:
            return
        self._waiting[relay] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="chunkwriter")

    async def end(self, relay: Relay, report: Report, *, provider: str | None) -> None:
        """Write how the committed call ended; waits for Redis, but not for long."""
        if relay.is_stale:
            return
        if report.state == CallState.COMPLETED and report.response is not None:
            if not relay.has_begun:
                relay.texts.extend(relay.openings(report.response))
            relay.end = _completed(relay, report, report.response)
        else:
            relay.end = _failed(relay, report, provider)
        self._urgent.set()
        self.wake(relay)
        try:
            async with asyncio.timeout(END_S):
                await relay.ended.wait()
        except TimeoutError:
            self._waiting.pop(relay, None)
            logger.warning("stream_end_not_written", call_id=str(relay.call.id))

    async def _run(self) -> None:
        while self._waiting:
            batch = list(self._waiting)
            self._waiting.clear()
            self._urgent.clear()
            try:
                await self._write(batch)
            except (redis.RedisError, OSError) as error:
                logger.warning("chunks_wait", error=type(error).__name__, streams=len(batch))
                self._waiting.update(dict.fromkeys(batch))
                await asyncio.sleep(PAUSE_S)
            else:
                await self._pace()

    async def _pace(self) -> None:
        try:
            async with asyncio.timeout(PACE_S):
                await self._urgent.wait()
        except TimeoutError:
            pass

    async def _write(self, batch: Sequence[Relay]) -> None:
        """One pipeline; what each answer says about its stream is acted on afterwards."""
        pipe = self._rt.redis.pipeline(transaction=False)
        sent = [(relay, self._queue(pipe, relay), relay.end) for relay in batch]
        answers = iter(await pipe.execute(raise_on_error=False))
        for relay, written, end in sent:
            added = next(answers) if written is not None else b""
            new = relay.written == 0 and written is not None
            if new:
                next(answers)
            ended = next(answers) if end is not None else b""
            if end is not None:
                next(answers)
            if not await self._is_taken(relay, written or relay.written, (added, ended), is_end=end is not None):
                self.wake(relay)

    def _queue(self, pipe: Any, relay: Relay) -> int | None:
        """Queue what is not there yet. Returns the number of the last chunk queued, None when there is none."""
        key, written = redis_keys.chunks(relay.call.id), None
        keep_s = self._rt.settings.stream_retention_s
        if relay.written < len(relay.texts):
            written = len(relay.texts)
            entry = Chunks(attempt=relay.call.number, last=written, texts=relay.texts[relay.written :])
            id_, fields = chunks.written(entry)
            pipe.xadd(key, fields, id=id_, nomkstream=relay.written > 0)
            if relay.written == 0:
                pipe.expire(key, int(max(0.0, relay.call.deadline_in_s)) + keep_s)
        if relay.end is not None:
            id_, fields = chunks.written(relay.end)
            pipe.xadd(key, fields, id=id_, nomkstream=bool(relay.texts))
            pipe.expire(key, keep_s)
        return written

    async def _is_taken(self, relay: Relay, written: int, answers: tuple[Any, Any], *, is_end: bool) -> bool:
        """Whether nothing of what was sent has to be sent again."""
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        if any(NOT_ABOVE not in str(error) for error in refused):
            raise refused[0]
        if refused:
            return await self._is_there(relay)
        if None in answers:
            # Redis was emptied: everything is written again, under the same numbers.
            relay.written = 0
            return False
        relay.written = written
        if is_end:
            relay.ended.set()
        return True

    async def _is_there(self, relay: Relay) -> bool:
        """After Redis refused an id: whether it has everything, by an earlier write whose answer was lost."""
        newest: Any = await self._rt.redis.xrevrange(redis_keys.chunks(relay.call.id), count=1)
        attempt, _, number = (newest[0][0] if newest else b"0-0").partition(b"-")
        if int(attempt) > relay.call.number:
            logger.info("stream_stale", call_id=str(relay.call.id), attempt=relay.call.number)
            relay.is_stale = True
            relay.ended.set()
            return True
        if int(number) == chunks.END:
            relay.ended.set()
        relay.written = min(int(number), len(relay.texts))
        return relay.written == len(relay.texts) and (relay.end is None or relay.ended.is_set())

    async def _begin_group(self, group: Sequence[Fence]) -> list[bool]:
        async with self._rt.db.hot_statement() as tx:
            begun = await attempts.begin_streams(tx, group)
        return [fence in begun for fence in group]


def _completed(relay: Relay, report: Report, response: str) -> End:
    return End(
        attempt=relay.call.number,
        first=len(relay.texts) + 1,
        state=report.state,
        finishes=relay.finishes(response),
        usage=orjson.dumps(_usage(report.usage)),
        cost_usd=orjson.dumps(money.usd(report.client_cost_nanousd)),
    )


def _failed(relay: Relay, report: Report, provider: str | None) -> End:
    code = report.error_code or "internal_error"
    error = {"code": code, "message": message(code, report.error_message), "provider": provider}
    return End(attempt=relay.call.number, first=len(relay.texts) + 1, state=report.state, error=error)


def _usage(usage: Usage) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.cached_tokens:
        shown["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        shown["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return shown


def _said(choice: dict[str, Any]) -> int:
    """Bytes of text in what one choice said; of anything but plain words, the JSON of it."""
    if "text" in choice:
        return len(choice["text"].encode())
    delta = choice["delta"]
    content = delta.get("content")
    if isinstance(content, str) and len(delta) <= 2:
        return len(content.encode())
    return sum(
        len(value.encode() if isinstance(value, str) else orjson.dumps(value))
        for name, value in delta.items()
        if name != "role"
    )
