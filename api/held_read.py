"""A read that is held until the thing ends or changes, or the client's time is up."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from starlette.requests import Request

from api import prefer
from api.replies import Reply
from api.waiting import Waiters

Read = Callable[[], Awaitable[tuple[dict[str, Any], bool]]]
"""Reads the thing: its body, and whether it is final."""


async def held_read(
    waiters: Waiters,
    request: Request,
    id_: UUID,
    wanted: prefer.Preference,
    read: Read,
    guesses: Collection[str] = (),
) -> Reply:
    """200 or 304: at once without a wait, else once it is final or no longer what If-None-Match says.

    Its end is told to all who wait; for a change each client that wants to hear of one has to look again.
    guesses: fields of the body that say nothing of a change, as `prefer.etag` takes them.
    """
    finished = waiters.expect(id_)
    until = asyncio.get_running_loop().time() + (wanted.wait_s or 0)
    looks_again = "if-none-match" in request.headers
    try:
        with waiters.rereading() if looks_again else nullcontext():
            while True:
                if finished.done():  # not by its end: a batch tells of the end of its job too
                    finished = waiters.expect(id_)
                body, final = await read()
                left_s = until - asyncio.get_running_loop().time()
                # A process that is closing answers with what there is.
                if final or waiters.is_closed or left_s <= 0 or _changed(request, body, guesses):
                    later = {} if final else {"Retry-After": "1"}
                    return prefer.conditional(request, body, {**wanted.headers, **later}, guesses)
                await asyncio.wait({finished}, timeout=min(left_s, waiters.reread_s) if looks_again else left_s)
    finally:
        waiters.forget(id_, finished)


def _changed(request: Request, body: dict[str, Any], guesses: Collection[str]) -> bool:
    return "if-none-match" in request.headers and not prefer.matches(request, prefer.etag(body, guesses))
