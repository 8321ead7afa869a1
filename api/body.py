"""Request bodies: read under a byte limit, whole or as they come."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from shared.errors import BadRequest, BodyTooLarge, WaybillError

UNENCODED = ("", "identity")
IDLE_S = 60.0
"""How long a client that streams its body may send nothing."""
MOST_S = 50 * 60.0
"""How long it may take in all; what is not whole after an hour is taken for left behind."""
WHOLE_S = 10 * 60.0
"""The same of a body that is kept in memory until it is whole."""


class BodyStalled(WaybillError):
    """The client stopped sending in the middle of its body, or sends it too slowly."""

    status, code = 408, "request_timeout"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Connection": "close"})


async def read_body(request: Request, limit_bytes: int, *, idle_s: float = IDLE_S) -> bytes:
    """The whole body, read once and kept. Raises BodyTooLarge when the limit is passed, and what `pieces` does."""
    kept: bytes | None = getattr(request.state, "raw_body", None)
    if kept is not None:
        return kept
    chunks = [piece async for piece in pieces(request, limit_bytes, idle_s=idle_s, most_s=WHOLE_S)]
    whole = request.state.raw_body = b"".join(chunks)
    return whole


def check_announced(request: Request, limit_bytes: int) -> None:
    """Whether what the headers say of a body can be taken. Raises BodyTooLarge, BadRequest."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in UNENCODED:
        raise BadRequest("Content-Encoding is not supported: send the body as it is")
    if announced(request) > limit_bytes:
        raise BodyTooLarge


def announced(request: Request) -> int:
    """How many bytes the body will have, as its headers say; 0 when they do not."""
    told = request.headers.get("content-length", "")
    return int(told) if told.isdigit() else 0


async def pieces(
    request: Request, limit_bytes: int, *, idle_s: float = IDLE_S, most_s: float = MOST_S
) -> AsyncIterator[bytes]:
    """The body piece by piece, as the client sends it. Raises BodyTooLarge, BadRequest (packed), BodyStalled."""
    check_announced(request, limit_bytes)
    coming = request.stream()
    size, until = 0, asyncio.get_running_loop().time() + most_s
    while True:
        try:
            async with asyncio.timeout(idle_s):
                piece = await anext(coming, None)
        except TimeoutError:
            raise BodyStalled(f"Nothing more of the body came for {idle_s:g} seconds") from None
        if piece is None:
            return
        size += len(piece)
        if size > limit_bytes:
            raise BodyTooLarge
        if asyncio.get_running_loop().time() > until:
            raise BodyStalled(f"A body may take {most_s / 60:g} minutes at most")
        yield piece
