"""Reading a file chunk by chunk: as lines, or as the bytes of a range. No connection is held between two chunks."""

import re
from collections.abc import AsyncIterator
from uuid import UUID

from shared import files
from shared.db import Database
from shared.files import CHUNK_BYTES, FileGone

MARK = b"\xef\xbb\xbf"
"""What some editors put before the first line."""
BLANKS = re.compile(rb"\s*")


class _Line:
    """The line that is being read. Of one that is too long nothing is kept."""

    def __init__(self, longest: int) -> None:
        # With its carriage return.
        self._most = longest + 1
        self._longest = longest
        self._pieces: list[bytes] = []
        self._size = 0
        self.is_blank = True

    def add(self, piece: bytes) -> None:
        """The line goes on so."""
        self._size += len(piece)
        self.is_blank = self.is_blank and (not piece or piece.isspace())
        if self._size <= self._most:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def end(self) -> bytes | None:
        """The whole line without its end, None when it is too long; the next one begins."""
        line = b"".join(self._pieces).removesuffix(b"\r") if self._size <= self._most else None
        self._pieces, self._size, self.is_blank = [], 0, True
        return line if line is None or len(line) <= self._longest else None


async def lines(db: Database, file_id: UUID, *, longest: int) -> AsyncIterator[tuple[int, bytes | None]]:
    """Each line that is not blank: its number among all lines, from 0, and its bytes without the line's end.

    longest: in bytes; in the place of a longer line comes None. After a chunk in which no such line ended comes b"", so
    that no reader waits for the end of a file of blanks. Raises FileGone.
    """
    number, line = 0, _Line(longest)
    async with db.hot_statement() as tx:
        size = await files.size(tx, file_id)
    mark = MARK
    async for chunk in content(db, file_id, 0, size):
        data, mark = chunk.removeprefix(mark), b""
        start, is_told = 0, False
        while (stop := data.find(b"\n", start)) >= 0:
            line.add(data[start:stop])
            start, is_blank, whole = stop + 1, line.is_blank, line.end()
            if not is_blank:
                is_told = True
                yield number, whole
            number += 1
            if is_blank:
                after = _after_blanks(data, start)
                number += data.count(b"\n", start, after)
                start = after
        line.add(data[start:])
        if not is_told:
            yield number, b""
    if not line.is_blank:
        yield number, line.end()


def _after_blanks(data: bytes, start: int) -> int:
    """Where the first line begins, from here on, that is not blank as far as the data go."""
    found = BLANKS.match(data, start)
    return max(start, data.rfind(b"\n", start, found.end() if found else start) + 1)


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
