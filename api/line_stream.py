"""The answer that streams the ended lines of a batch: those that there are, or on until the last one of all.

A line's place among the ended ones is its number, so that a client knows where to go on: behind the last whole line
that it has.
"""

import asyncio
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.event_stream import HEADERS, until_gone
from api.line_waiting import Follower
from api.streams import Pace
from api.wire.media import LINES
from shared import clock, ids, log
from shared.db import is_down

logger = log.get(__name__)

STILL_HERE = b"\n"
"""A blank line, which readers of JSON lines pass over."""
READ_AGAIN_S = 0.5


class LineStream(Response):
    """200, then one line after the other. A client that takes nothing for long is dropped; it can resume.

    after: the number of the line it begins behind. until: the number of its last line; None to follow the batch to its
    end.
    """

    media_type = LINES.type

    def __init__(
        self, follower: Follower, pace: Pace, *, after: int, until: int | None, headers: Mapping[str, str]
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**HEADERS, **headers})
        self._follower = follower
        self._pace = pace
        self._after = after
        self._until = until
        self._quiet_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client is gone."""
        gone = asyncio.create_task(until_gone(receive))
        gone.add_done_callback(self._wake)
        try:
            await self._send(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await self._send(send, {"type": "http.response.body", "body": b""})
            else:
                await self._tell(send, gone)
        except ClientDisconnect:
            pass
        except TimeoutError as error:
            # Left without its end, so that the client knows that there is more.
            logger.info("line_stream_broken_off", batch=ids.batch(self._follower.batch_id), reason=str(error))
        finally:
            gone.remove_done_callback(self._wake)
            gone.cancel()
            self._follower.leave()

    async def _tell(self, send: Send, gone: "asyncio.Task[None]") -> None:
        while not gone.done():
            is_over = self._is_over
            if self._after >= self._last and not is_over:
                await self._follower.wait(self._quiet_until - clock.monotonic())
            text = await self._next()
            is_over = is_over and self._after >= self._last
            if text or is_over or clock.monotonic() >= self._quiet_until:
                body = text if text or is_over else STILL_HERE
                await self._send(send, {"type": "http.response.body", "body": body, "more_body": not is_over})
            if is_over:
                return

    @property
    def _last(self) -> int:
        """The number of the last line that is to be sent, as far as we know."""
        ended = self._follower.progress.ended
        return ended if self._until is None else self._until

    @property
    def _is_over(self) -> bool:
        """Whether nothing comes after that line, or nothing that this process waits for."""
        return self._until is not None or self._follower.progress.is_over or self._follower.is_over

    async def _next(self) -> bytes:
        """The next lines, as many as are read at a time. One who follows waits for a database that is in trouble."""
        if self._after >= self._last:
            return b""
        try:
            page = await self._follower.page(self._after, self._last - self._after)
        except Exception as error:
            if not is_down(error):
                raise
            if self._until is not None:
                raise TimeoutError("the database is away") from error
            logger.info("line_read_failed", error=type(error).__name__)
            await asyncio.sleep(READ_AGAIN_S)
            return b""
        self._after = page.last or self._last
        return page.text

    async def _send(self, send: Send, message: Message) -> None:
        """Raises TimeoutError for a client that does not take it."""
        try:
            async with asyncio.timeout(self._pace.send_s):
                await send(message)
        except TimeoutError:
            raise TimeoutError("the client is too slow") from None
        self._quiet_until = clock.monotonic() + self._pace.silence_s

    def _wake(self, _: "asyncio.Task[None]") -> None:
        self._follower.wake()
