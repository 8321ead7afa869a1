"""Files: what clients upload for batches and what batches leave behind; their bytes lie in rows of 1 MiB.

uploading ── finish ──→ processed ── lock, hide ──→ hidden ── delete_chunks, delete_hidden ──→ gone
    └───────────────────── discard ────────────────↑

A hidden file is one that is `uploading` and expired: nobody sees it, nothing is added to it, and retention removes what
is left of it. A big file is not deleted in one statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from shared.db import Tx, hot
from shared.errors import Conflict, WaybillError
from shared.sql_terms import UNFINISHED_BATCH
from shared.states import FilePurpose

CHUNK_BYTES = 1 << 20
"""Of every chunk but a file's last."""
KEPT_S = 30 * 24 * 3600
"""How long a file is kept when its owner did not say."""

BROUGHT = "batch_input.jsonl"
"""The name of the file that we make of lines which came with the request for a batch."""

Order = Literal["asc", "desc"]

COLUMNS = "f.id, f.team_id, f.purpose, f.status, f.filename, f.bytes, f.created_at, f.expires_at"
SEEN = "f.status = 'processed' and f.expires_at > app_now()"
READ_BY_BATCH = f"""exists (select from batches b where b.input_file_id = f.id
                               and b.status in {UNFINISHED_BATCH})"""

BEGIN = """
insert into files (id, team_id, purpose, filename, expires_at)
values (%(id)s, %(team_id)s, %(purpose)s, %(filename)s, app_now() + make_interval(secs => %(expires_after_s)s))
"""

# A crash of the server may lose the last ones; `finish`, which waits for its log, then was not reached either.
APPEND = """
insert into file_chunks (file_id, number, bytes)
select id, %(number)s, %(data)s from files, set_config('synchronous_commit', 'off', true)
 where id = %(id)s and status = 'uploading' and expires_at > app_now()
returning number
"""

FINISH = """
update files set status = 'processed', bytes = %(bytes)s,
       expires_at = case when %(expires_after_s)s::int is null then expires_at
                         else created_at + make_interval(secs => %(expires_after_s)s::int) end
 where id = %(id)s and status = 'uploading' and expires_at > app_now()
returning id
"""

FORGET = f"""
update files set expires_at = %(at)s
 where id = any(%(ids)s) and expires_at > %(at)s and (purpose = 'batch_output' or filename = '{BROUGHT}')
"""

READ = f"select {COLUMNS} from files f where f.id = %s and f.team_id = %s and {SEEN}"

HOLD = f"select f.id from files f where f.id = %s and f.team_id = %s and f.purpose = 'batch' and {SEEN} for key share"

# Of a file on its way, the chunks that are there: its last one is counted as a full one.
STORED = f"""
select coalesce(sum(case f.status when 'processed' then f.bytes else
           coalesce((select (c.number + 1) * {CHUNK_BYTES}::bigint from file_chunks c where c.file_id = f.id
                      order by c.number desc limit 1), 0) end), 0)::bigint as bytes
  from files f where f.team_id = %s and f.expires_at > app_now()
"""

SIZE = "select bytes from files where id = %s and status = 'processed'"

CHUNK = "select bytes from file_chunks where file_id = %s and number = %s"

# Ids sort by time.
LIST = f"""
select {COLUMNS} from files f
 where f.team_id = %(team_id)s and {SEEN} and (%(purpose)s::text is null or f.purpose = %(purpose)s)
   and (%(after)s::uuid is null or f.id {{past}} %(after)s)
 order by f.id {{order}} limit %(limit)s
"""
LISTS = {"asc": LIST.format(past=">", order="asc"), "desc": LIST.format(past="<", order="desc")}

# Two statements, and the second one looks anew: who waited here for a batch that holds the file then sees that batch.
LOCK = f"select f.id from files f where f.id = %s and f.team_id = %s and {SEEN} for update"

HIDE = f"""
update files f set status = 'uploading', expires_at = app_now()
 where f.id = any(%s) and not {READ_BY_BATCH}
returning f.id
"""

DISCARD = """
update files set expires_at = app_now() where id = any(%s) and status = 'uploading' and expires_at > app_now()
returning id
"""

LOCK_OVER = f"""
select f.id from files f
 where (f.status = 'processed' and f.expires_at <= app_now() and not {READ_BY_BATCH})
    or (f.status = 'uploading' and f.expires_at > app_now()
        and f.created_at <= app_now() - make_interval(secs => %(unfinished_s)s))
 limit %(limit)s for update skip locked
"""

DELETE_CHUNKS = """
delete from file_chunks where (file_id, number) in (
    select c.file_id, c.number from files f join file_chunks c on c.file_id = f.id
     where f.status = 'uploading' and f.expires_at <= app_now() and (%(id)s::uuid is null or f.id = %(id)s)
     limit %(limit)s for update of c skip locked)
returning number
"""

DELETE_HIDDEN = """
delete from files f where f.id in (
    select f.id from files f
     where f.status = 'uploading' and f.expires_at <= app_now() and (%(id)s::uuid is null or f.id = %(id)s)
       and not exists (select from file_chunks c where c.file_id = f.id)
     limit %(limit)s for update skip locked)
returning f.id
"""


class FileGone(Conflict):
    """The file was deleted, or took longer than an hour, while its bytes were written or read."""


class TeamFilesFull(WaybillError):
    """What the team keeps in files leaves no room for one more. most_bytes: the bound of what it may keep."""

    status, code = 413, "team_files_full"

    def __init__(self, stored_bytes: int, most_bytes: int) -> None:
        stored_mb, most_mb = stored_bytes / 2**20, most_bytes / 2**20
        super().__init__(
            f"This team keeps {stored_mb:,.1f} MB in files and may keep {most_mb:,.0f} MB: this one does not fit. "
            "Delete files it no longer needs, or wait until they expire"
        )


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """A file that is to be written. expires_after_s: counted from now."""

    id: UUID
    team_id: str
    purpose: FilePurpose
    filename: str
    expires_after_s: int = KEPT_S


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that is whole."""

    id: UUID
    team_id: str
    purpose: str
    status: str
    filename: str
    bytes: int
    created_at: datetime
    expires_at: datetime


async def begin(tx: Tx, new: NewFile) -> None:
    """Insert a file that has no bytes yet and that nobody sees."""
    await hot(tx, BEGIN, vars(new))


async def append(tx: Tx, file_id: UUID, number: int, data: bytes) -> bool:
    """Add the next chunk, counted from 0. False when the file is hidden or gone."""
    return bool(await hot(tx, APPEND, {"id": file_id, "number": number, "data": data}))


async def finish(tx: Tx, file_id: UUID, bytes_: int, *, expires_after_s: int | None = None) -> bool:
    """Let the file be seen: its chunks are written, bytes_ in all. False when it is hidden, gone or finished.

    expires_after_s: counted from its beginning, where this was not known then.
    """
    return bool(await hot(tx, FINISH, {"id": file_id, "bytes": bytes_, "expires_after_s": expires_after_s}))


async def forget(tx: Tx, file_ids: Sequence[UUID], *, at: datetime) -> None:
    """Let these expire at `at`, if not sooner; a file that its owner uploaded is left as it is."""
    await hot(tx, FORGET, {"ids": list(file_ids), "at": at})


async def read(tx: Tx, file_id: UUID, team_id: str) -> File | None:
    """A team's file that is whole and not expired."""
    rows = await hot(tx, READ, (file_id, team_id))
    return File(**rows[0]._asdict()) if rows else None


async def hold(tx: Tx, file_id: UUID, team_id: str) -> bool:
    """Keep a team's file for batches from being deleted until this transaction, which makes its batch, has ended.

    False when the team has no such file.
    """
    return bool(await hot(tx, HOLD, (file_id, team_id)))


async def stored_bytes(tx: Tx, team_id: str) -> int:
    """What all files of a team have, those of its batches and those on their way too; deleted and expired ones apart.

    It reads the row of each: 100,000 files take some 50 ms.
    """
    [row] = await hot(tx, STORED, (team_id,))
    return int(row.bytes)


async def size(tx: Tx, file_id: UUID) -> int | None:
    """How many bytes a whole file has, expired or not; None when there is none."""
    rows = await hot(tx, SIZE, (file_id,))
    return int(rows[0].bytes) if rows else None


async def chunk(tx: Tx, file_id: UUID, number: int) -> bytes | None:
    """The bytes of one chunk, counted from 0."""
    rows = await hot(tx, CHUNK, (file_id, number), binary=True)
    return bytes(rows[0].bytes) if rows else None


async def list_of_team(
    tx: Tx, team_id: str, *, purpose: str | None, after: UUID | None, order: Order, limit: int
) -> list[File]:
    """A team's files by the time they were made. after: of the page before, the last one's id; it may be gone."""
    given = {"team_id": team_id, "purpose": purpose, "after": after, "limit": limit}
    return [File(**row._asdict()) for row in await hot(tx, LISTS[order], given)]


async def lock(tx: Tx, file_id: UUID, team_id: str) -> bool:
    """Wait for whoever holds a team's file and let no one hold it; `hide` comes next. False when there is none."""
    return bool(await hot(tx, LOCK, (file_id, team_id)))


async def hide(tx: Tx, file_ids: Sequence[UUID]) -> int:
    """Take whole files, locked before, out of sight for good, all but those that a running batch reads.

    Returns how many.
    """
    return len(await hot(tx, HIDE, (list(file_ids),)))


async def discard(tx: Tx, file_ids: Sequence[UUID]) -> list[UUID]:
    """Hide those of these files that are not finished; returns which. It does no harm to the others."""
    return [row.id for row in await hot(tx, DISCARD, (list(file_ids),))]


async def hide_over(tx: Tx, *, unfinished_s: float, limit: int) -> int:
    """Hide files that are expired, or that are not whole so long after they were begun. Returns how many."""
    found = await hot(tx, LOCK_OVER, {"unfinished_s": unfinished_s, "limit": limit})
    return await hide(tx, [row.id for row in found]) if found else 0


async def delete_chunks(tx: Tx, *, limit: int, file_id: UUID | None = None) -> int:
    """Delete chunks of hidden files, or of this one. Returns how many."""
    return len(await hot(tx, DELETE_CHUNKS, {"id": file_id, "limit": limit}))


async def delete_hidden(tx: Tx, *, limit: int, file_id: UUID | None = None) -> int:
    """Delete hidden files that have no chunk any more, or this one. Returns how many."""
    return len(await hot(tx, DELETE_HIDDEN, {"id": file_id, "limit": limit}))
