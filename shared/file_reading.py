"""Reading a file chunk by chunk: as lines, or as the bytes of a range. No connection is held between two chunks."""

from collections.abc import AsyncIterator
from uuid import UUID

from shared import files
from shared.db import Database
from shared.files import CHUNK_BYTES, FileGone

MARK = b"\xef\xbb\xbf"
"""What some editors put before the first line."""


async def lines(db: Database, file_id: UUID, *, longest: int) -> AsyncIterator[tuple[int, bytes | None]]:
    """Each line that is not blank: its number among all lines, from 0, and its bytes without the line's end.

    longest: in bytes; in the place of a longer line comes None. Raises FileGone.
    """
    number, rest = 0, b""
    async with db.hot_statement() as tx:
        size = await files.size(tx, file_id)
    async for data in content(db, file_id, 0, size):
        *whole, rest = (rest + (data if rest or number else data.removeprefix(MARK))).split(b"\n")
        for line in whole:
            if line and not line.isspace():
                yield number, _within(line, longest)
            number += 1
        # Enough to tell that the line is too long, with its carriage return; the rest of it is passed over.
        rest = rest[: longest + 2]
    if rest and not rest.isspace():
        yield number, _within(rest, longest)


async def content(db: Database, file_id: UUID, start: int, stop: int | None) -> AsyncIterator[bytes]:
    """The bytes from start up to and not including stop. stop: None, as `files.size` says it, where there is no file.

    Raises FileGone when the file is deleted meanwhile.
    """
    if stop is None:
        raise FileGone("There is no such file any more")
    for number in range(start // CHUNK_BYTES, -(-stop // CHUNK_BYTES)):
        async with db.hot_statement() as tx:
            data = await files.chunk(tx, file_id, number)
        if data is None:
            raise FileGone("The file was deleted while it was read")
        begin = number * CHUNK_BYTES
        yield data[max(0, start - begin) : stop - begin]


def _within(line: bytes, longest: int) -> bytes | None:
    without = line.removesuffix(b"\r")
    return without if len(without) <= longest else None
