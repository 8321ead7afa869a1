"""An answer that goes on: what there is, then what comes, a sign of life in silence, until its end."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.event_stream import HEADERS, until_gone
from api.streams import Pace
from shared import clock, log

logger = log.get(__name__)


class Follower(Protocol):
    """Who waits for what comes."""

    def wake(self) -> None:
        """Let the one who waits look again."""

    def leave(self) -> None:
        """Follow no more."""


class BrokenOff(Exception):
    """The answer is left without its end, so that the client knows that there is more. The text is for the log."""


class FollowedStream(Response, ABC):
    """200, then one piece after the other. A client that takes nothing for long is dropped; it can resume.

    still_here: what a client is sent in silence. of: what the log says of a stream that is broken off.
    """

    still_here: ClassVar[bytes]

    def __init__(self, follower: Follower, pace: Pace, headers: Mapping[str, str], of: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**HEADERS, **headers})
        self._following = follower
        self._pace = pace
        self._of = of
        self._quiet_until = 0.0

    @abstractmethod
    async def next(self, wait_s: float) -> tuple[bytes, bool]:
        """What comes next, and whether that is the end; nothing when nothing came in this time. Raises BrokenOff."""

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
        except BrokenOff as error:
            logger.info("stream_broken_off", **self._of, reason=str(error))
        finally:
            gone.remove_done_callback(self._wake)
            gone.cancel()
            self._following.leave()

    async def _tell(self, send: Send, gone: "asyncio.Task[None]") -> None:
        is_over = False
        while not is_over:
            piece, is_over = await self.next(self._quiet_until - clock.monotonic())
            if gone.done():
                return
            if not piece and not is_over and clock.monotonic() >= self._quiet_until:
                piece = self.still_here
            if piece or is_over:
                await self._send(send, {"type": "http.response.body", "body": piece, "more_body": not is_over})

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._pace.send_s):
                await send(message)
        except TimeoutError:
            raise BrokenOff("the client is too slow") from None
        self._quiet_until = clock.monotonic() + self._pace.silence_s

    def _wake(self, _: "asyncio.Task[None]") -> None:
        self._following.wake()
