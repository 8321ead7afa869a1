"""The answer that streams a call: frames as they come, a comment in silence, an error in words, `[DONE]` at the end.

Nothing is sent before the first chunk or the first comment: what goes wrong until then is an ordinary refusal.
"""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.call_stream import CallStream
from api.desk import Desk
from api.frames import JOBS, OPENAI, OPENAI_WITH_USAGE, Dialect
from api.http import known
from api.streams import Pace
from shared import clock, log
from shared.chunks import Chunks, End, Entry
from shared.runtime import Runtime

__all__ = ["JOBS", "OPENAI", "OPENAI_WITH_USAGE", "EventStream", "answer"]

logger = log.get(__name__)

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def answer(
    rt: Runtime,
    desk: Desk,
    request: Request,
    *,
    job_id: UUID,
    call_id: UUID,
    dialect: Dialect,
    headers: Mapping[str, str],
    finished: "asyncio.Future[None] | None" = None,
    after: int = 0,
    needs_texts: bool = False,
) -> "EventStream":
    """The stream of a call from chunk `after + 1`, once its first frame is there.

    finished: of a call that was accepted just now. needs_texts: an answer whose texts are erased is Gone.
    headers: of this answer, whatever it becomes. Raises what refuses it: CallFailed, Gone, NotFound, Unavailable,
        ClientDisconnect.
    """
    stream = CallStream(
        rt, desk, job_id=job_id, call_id=call_id, after=after, finished=finished, needs_texts=needs_texts
    )
    teller = _Teller(request, stream, dialect, desk.pace)
    try:
        if finished is None:
            await stream.look_up()
        first = await teller.begin()
    except BaseException as error:
        teller.close()
        if isinstance(error, ClientDisconnect) or not isinstance(error, Exception):
            raise
        refusal = known(request, error)
        refusal.headers = {**headers, **refusal.headers}
        raise refusal from error
    return EventStream(teller, first, headers)


class EventStream(Response):
    """200, then one frame after the other. A client that takes nothing for long is dropped; it can resume."""

    media_type = "text/event-stream"

    def __init__(self, teller: "_Teller", first: bytes, headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**headers, **HEADERS})
        self._teller = teller
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the teller listens
        """Send until the end, or until the client is gone."""
        teller = self._teller
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            await teller.send(send, start)
            if scope["method"] == "HEAD":
                await teller.send(send, {"type": "http.response.body", "body": b""})
                return
            frames = self._first
            while True:
                body = {"type": "http.response.body", "body": frames, "more_body": not teller.is_over}
                await teller.send(send, body)
                if teller.is_over:
                    return
                frames = await teller.go_on()
        except ClientDisconnect:
            pass
        except TimeoutError:
            # Left without its end, so that the client knows that there is more.
            logger.info("stream_client_too_slow", call_id=str(teller.call_id))
        finally:
            teller.close()


class _Teller:
    """Tells a client what a call says, in a dialect. is_over: the last frame was made."""

    def __init__(self, request: Request, stream: CallStream, dialect: Dialect, pace: Pace) -> None:
        self.is_over = False
        self._stream = stream
        self._dialect = dialect
        self._pace = pace
        self._request = request
        self._quiet_until = clock.monotonic() + pace.silence_s
        self._gone = asyncio.create_task(until_gone(request.receive))
        self._gone.add_done_callback(self._wake)

    @property
    def call_id(self) -> UUID:
        """Whose stream it is."""
        return self._stream.call_id

    def close(self) -> None:
        """Forget the client."""
        self._gone.remove_done_callback(self._wake)
        self._gone.cancel()
        self._stream.close()

    async def begin(self) -> bytes:
        """The first frames, or a comment after silence. Raises what refuses the request."""
        entries = await self._next()
        if entries and isinstance(entries[0], End) and entries[0].error is not None:
            raise await self._stream.failure(entries[0])
        return self._told(entries)

    async def go_on(self) -> bytes:
        """The next frames; errors are told. Raises ClientDisconnect."""
        try:
            return self._told(await self._next())
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - every error is told
            self.is_over = True
            return self._dialect.error(known(self._request, error))

    async def send(self, send: Send, message: Message) -> None:
        """Raises TimeoutError for a client that does not take it."""
        async with asyncio.timeout(self._pace.send_s):
            await send(message)

    async def _next(self) -> list[Entry]:
        """What comes next; nothing after silence. Raises ClientDisconnect."""
        while True:
            entries = await self._stream.next(self._quiet_until - clock.monotonic())
            if self._gone.done():
                raise ClientDisconnect
            now = clock.monotonic()
            if entries or now >= self._quiet_until:
                self._quiet_until = now + self._pace.silence_s
                return entries

    def _told(self, entries: Sequence[Entry]) -> bytes:
        if not entries:
            return self._dialect.keepalive
        return b"".join([self._frames(entry) for entry in entries])

    def _frames(self, entry: Entry) -> bytes:
        if isinstance(entry, Chunks):
            return self._dialect.chunks(entry)
        self.is_over = True
        if entry.error is not None:
            return self._dialect.error(self._stream.told_failure(entry))
        return self._dialect.end(entry)

    def _wake(self, _: "asyncio.Task[None]") -> None:
        self._stream.follower.wake()


async def until_gone(receive: Receive) -> None:
    """Wait until the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
