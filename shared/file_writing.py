"""Writing a file as its bytes come: rows of 1 MiB, each stored by itself, no connection held in between."""

from uuid import UUID

from shared import files
from shared.db import Database
from shared.files import CHUNK_BYTES, KEPT_S, FileGone, NewFile, TeamFilesFull
from shared.states import FilePurpose

DELETED_AT_ONCE = 64
"""Chunks, in one transaction."""
LOOK_BYTES = 16 * CHUNK_BYTES
"""A file writes so much before it looks again what its team keeps."""


class FileWriter:
    """One new file; nobody sees it until the caller has called `files.finish` with what `flush` returned.

    What is broken off is taken away by `discard`; what a crash leaves, by retention after an hour. filename: may be set
    until the first byte is written. team_bytes: what all files of the team may have together; None: this one is stored
    whatever the others have. It is no lock: files that are written at once may pass it by LOOK_BYTES each.
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
        team_bytes: int | None = None,
    ) -> None:
        self.file_id = file_id
        self.filename = filename
        self._db = db
        self._team_id, self._purpose, self._expires_after_s = team_id, purpose, expires_after_s
        self._team_bytes = team_bytes
        self._room = 0
        self._is_begun = False
        self._rest = bytearray()
        self._chunks = 0
        self.bytes = 0

    async def find_room(self, wanted: int) -> None:
        """Look whether so many more bytes fit among the files of the team. Raises TeamFilesFull."""
        if self._team_bytes is None:
            return
        async with self._db.hot_statement() as tx:
            stored = await files.stored_bytes(tx, self._team_id)
        if stored + wanted > self._team_bytes:
            raise TeamFilesFull(stored, self._team_bytes)
        self._room = min(LOOK_BYTES, self._team_bytes - stored)

    async def write(self, data: bytes) -> None:
        """Add bytes, of any number. Raises FileGone, TeamFilesFull."""
        self._rest += data
        self.bytes += len(data)
        while len(self._rest) >= CHUNK_BYTES:
            await self._store(bytes(self._rest[:CHUNK_BYTES]))
            del self._rest[:CHUNK_BYTES]

    async def flush(self) -> int:
        """Store what is left; the last step before `files.finish`. Returns how many bytes there are in all.

        Raises as `write` does.
        """
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
        if len(data) > self._room:
            await self.find_room(len(data))
        self._room -= len(data)
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
