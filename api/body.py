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


class BodyStalled(WaybillError):
    """The client stopped sending in the middle of its body, or sends it too slowly."""

    status, code = 408, "request_timeout"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Connection": "close"})


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, read once and kept. Raises BodyTooLarge when the limit is passed, BadRequest for a packed one."""
    kept: bytes | None = getattr(request.state, "raw_body", None)
    if kept is not None:
        return kept
    check_announced(request, limit_bytes)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise BodyTooLarge
        chunks.append(chunk)
    whole = request.state.raw_body = b"".join(chunks)
    return whole


def check_announced(request: Request, limit_bytes: int) -> None:
    """Whether what the headers say of a body can be taken. Raises BodyTooLarge, BadRequest."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in UNENCODED:
        raise BadRequest("Content-Encoding is not supported: send the body as it is")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise BodyTooLarge


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
