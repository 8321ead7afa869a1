"""Writing a file as its bytes come: rows of 1 MiB, each stored by itself, no connection held in between."""

from uuid import UUID

from shared import files
from shared.db import Database
from shared.files import CHUNK_BYTES, KEPT_S, FileGone, NewFile
from shared.states import FilePurpose

DELETED_AT_ONCE = 64
"""Chunks, in one transaction."""


class FileWriter:
    """One new file; nobody sees it until the caller has called `files.finish` with what `flush` returned.

    What is broken off is taken away by `discard`; what a crash leaves, by retention after an hour. filename: may be set
    until the first byte is written.
    """

    def __init__(
        self,
        db: Database,
        *,
        file_id: UUID,
        team_id: str,
        purpose: FilePurpose,
        filename: str,
        expires_after_s: int = KEPT_S,
    ) -> None:
        self.file_id = file_id
        self.filename = filename
        self._db = db
        self._team_id, self._purpose, self._expires_after_s = team_id, purpose, expires_after_s
        self._is_begun = False
        self._rest = bytearray()
        self._chunks = 0
        self.bytes = 0

    async def write(self, data: bytes) -> None:
        """Add bytes, of any number. Raises FileGone."""
        self._rest += data
        self.bytes += len(data)
        while len(self._rest) >= CHUNK_BYTES:
            await self._store(bytes(self._rest[:CHUNK_BYTES]))
            del self._rest[:CHUNK_BYTES]

    async def flush(self) -> int:
        """Store what is left; the last step before `files.finish`. Returns how many bytes there are in all."""
        if self._rest:
            await self._store(bytes(self._rest))
            self._rest.clear()
        await self._begin()
        return self.bytes

    async def discard(self) -> None:
        """Take away what is not finished, in small steps; it does no harm to a finished file."""
        if not self._is_begun:
            return
        async with self._db.hot_statement() as tx:
            unfinished = await files.discard(tx, [self.file_id])
        if unfinished:
            await delete_hidden(self._db, self.file_id)

    async def _begin(self) -> None:
        if self._is_begun:
            return
        self._is_begun = True
        new = NewFile(
            id=self.file_id,
            team_id=self._team_id,
            purpose=self._purpose,
            filename=self.filename,
            expires_after_s=self._expires_after_s,
        )
        async with self._db.hot_statement() as tx:
            await files.begin(tx, new)

    async def _store(self, data: bytes) -> None:
        await self._begin()
        async with self._db.hot_statement() as tx:
            if not await files.append(tx, self.file_id, self._chunks, data):
                raise FileGone("The file was removed before all of it was written")
        self._chunks += 1


async def delete_hidden(db: Database, file_id: UUID) -> None:
    """Delete a hidden file in small steps; what a fault leaves of it, retention deletes."""
    found = DELETED_AT_ONCE
    while found == DELETED_AT_ONCE:
        async with db.hot_transaction() as tx:
            found = await files.delete_chunks(tx, limit=DELETED_AT_ONCE, file_id=file_id)
    async with db.hot_transaction() as tx:
        await files.delete_hidden(tx, limit=1, file_id=file_id)
