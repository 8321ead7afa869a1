"""Request bodies: read under a byte limit."""

from starlette.requests import Request

from shared.errors import BadRequest, BodyTooLarge

UNENCODED = ("", "identity")


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, read once and kept. Raises BodyTooLarge when the limit is passed, BadRequest for a packed one."""
    kept: bytes | None = getattr(request.state, "raw_body", None)
    if kept is not None:
        return kept
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in UNENCODED:
        raise BadRequest("Content-Encoding is not supported: send the body as it is")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise BodyTooLarge
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise BodyTooLarge
        chunks.append(chunk)
    whole = request.state.raw_body = b"".join(chunks)
    return whole
