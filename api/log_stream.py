"""The answer that streams a team's event log: what is there, then what comes, a comment in silence.

Nothing is sent before the first read: what goes wrong until then is an ordinary refusal. After it the database may be
away: the stream stays open and goes on where it was.
"""

import asyncio
import random
from collections.abc import Callable, Iterable

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.event_stream import HEADERS, until_gone
from api.log_waiting import Follower
from api.streams import Pace
from shared import clock, ids, log
from shared.db import is_down
from shared.event_log import Entry

logger = log.get(__name__)

PING = b": ping\n\n"
RETRY_MS = (1000, 3000)
"""When to come again, as a process that closes says: not all at once."""
READ_AGAIN_S = 1.0


def frame(entry: Entry) -> bytes:
    """One event; its body is one line of JSON."""
    return f"id: {ids.prefixed('evt', entry.id)}\nevent: {entry.type}\ndata: {entry.body}\n\n".encode()


class LogStream(Response):
    """200, then one event after the other. A client that takes nothing for long is dropped; it can resume.

    first: what the first read found. is_told, is_last: of an event, whether the client gets it, and whether the stream
    ends with it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        follower: Follower,
        first: Iterable[Entry],
        pace: Pace,
        *,
        is_told: Callable[[Entry], bool] = lambda _: True,
        is_last: Callable[[Entry], bool] = lambda _: False,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._follower = follower
        self._first = first
        self._pace = pace
        self._is_told = is_told
        self._is_last = is_last

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
        except TimeoutError:
            # Left without its end, so that the client knows that there is more.
            logger.info("log_client_too_slow", team_id=self._follower.team_id)
        finally:
            gone.remove_done_callback(self._wake)
            gone.cancel()
            self._follower.leave()

    async def _tell(self, send: Send, gone: "asyncio.Task[None]") -> None:
        frames, is_over = self._told(self._first)
        quiet_until = clock.monotonic() + self._pace.silence_s
        while True:
            if frames or is_over:
                await self._send(send, {"type": "http.response.body", "body": frames, "more_body": not is_over})
                quiet_until = clock.monotonic() + self._pace.silence_s
            if is_over:
                return
            frames, is_over = self._told(await self._next(quiet_until - clock.monotonic()))
            if gone.done():
                return
            if not frames and self._follower.is_over:
                frames, is_over = b"retry: %d\n\n" % random.randint(*RETRY_MS), True  # noqa: S311 - spreads clients
            elif not frames and clock.monotonic() >= quiet_until:
                frames = PING

    async def _next(self, timeout_s: float) -> list[Entry]:
        """What comes next. Trouble with the database passes, and the follower reads on from where he is."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s) + READ_AGAIN_S):
                return await self._follower.take(timeout_s)
        except Exception as error:
            if not is_down(error):
                raise
            logger.info("log_read_failed", error=type(error).__name__)
            await asyncio.sleep(min(READ_AGAIN_S, max(0.0, timeout_s)))
            return []

    def _told(self, entries: Iterable[Entry]) -> tuple[bytes, bool]:
        """The frames of these, and whether the last event of the stream is among them."""
        frames = []
        for entry in entries:
            if self._is_told(entry):
                frames.append(frame(entry))
            if self._is_last(entry):
                return b"".join(frames), True
        return b"".join(frames), False

    async def _send(self, send: Send, message: Message) -> None:
        """Raises TimeoutError for a client that does not take it."""
        async with asyncio.timeout(self._pace.send_s):
            await send(message)

    def _wake(self, _: "asyncio.Task[None]") -> None:
        self._follower.wake()
