"""The files of a team, in OpenAI's dialect: what batches read, and what they leave."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api import prefer
from api.auth import Caller
from api.gateway.face import GATEWAY
from api.http import endpoint
from api.once import Once
from api.ranges import Range, asked_range
from api.uploads import MULTIPART, Upload, receive_file
from api.wire.files import JSONL, DeletedFileOut, FileList, FileOut, FilesQuery, UploadForm
from shared import file_writing, files, ids
from shared.db import Tx
from shared.errors import Conflict, Invalid, NotFound
from shared.file_reading import content
from shared.files import File
from shared.runtime import Runtime


@endpoint("team", answers=FileOut, face=GATEWAY, reads=receive_file, bodies={MULTIPART: UploadForm})
async def create_file(rt: Runtime, caller: Caller, received: Upload, once: Once) -> dict[str, Any]:
    """Upload a file, for a batch to read; it is kept for 30 days unless `expires_after` says less."""
    async with rt.db.hot_transaction() as tx:
        await received.finish(tx)
        return await once.keep(tx, file_object(await _find(tx, caller, ids.file(received.file_id))))


@endpoint("team", answers=FileList, face=GATEWAY)
async def list_files(rt: Runtime, caller: Caller, query: FilesQuery) -> dict[str, Any]:
    """The files of this team that are not expired."""
    after = None if query.after is None else _cursor(query.after)
    async with rt.db.hot_statement() as tx:
        found = await files.list_of_team(
            tx, caller.team.team_id, purpose=query.purpose, after=after, order=query.order, limit=query.limit + 1
        )
    shown = [file_object(file) for file in found[: query.limit]]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"object": "list", "data": shown, "first_id": first, "last_id": last, "has_more": len(found) > query.limit}


@endpoint("team", answers=FileOut, face=GATEWAY)
async def read_file(rt: Runtime, caller: Caller, file_id: str) -> dict[str, Any]:
    """One file of this team."""
    async with rt.db.hot_statement() as tx:
        return file_object(await _find(tx, caller, file_id))


@endpoint("team", answers={200: JSONL, 206: JSONL, 304: None}, face=GATEWAY)
async def read_file_content(rt: Runtime, caller: Caller, request: Request, file_id: str) -> Response:
    """The bytes of a file, all of them or one range of them."""
    async with rt.db.hot_statement() as tx:
        file = await _find(tx, caller, file_id)
    headers = {"ETag": f'"{ids.file(file.id)}"', "Accept-Ranges": "bytes"}
    if prefer.matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    part = asked_range(request, file.bytes, headers["ETag"])
    named = {**headers, "Content-Disposition": disposition(file.filename)}
    if part is None:
        return _bytes(rt, request, file, Range(start=0, stop=file.bytes), named)
    return _bytes(rt, request, file, part, {**named, "Content-Range": part.of(file.bytes)}, status=206)


@endpoint("team", answers=DeletedFileOut, face=GATEWAY)
async def delete_file(rt: Runtime, caller: Caller, file_id: str) -> dict[str, Any]:
    """Delete a file, for good; 409 while a batch that has not ended reads it."""
    found = ids.parse_file(file_id)
    async with rt.db.hot_transaction() as tx:
        if found is None or not await files.lock(tx, found, caller.team.team_id):
            raise _unknown(file_id)
        if not await files.hide(tx, [found]):
            raise Conflict("A batch that has not ended reads this file: cancel the batch, or wait for its end")
    await file_writing.delete_hidden(rt.db, found)
    return {"id": ids.file(found), "object": "file", "deleted": True}


def file_object(file: File) -> dict[str, Any]:
    """A file as clients see it."""
    return {
        "id": ids.file(file.id),
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": file.status,
    }


def disposition(filename: str) -> str:
    """`Content-Disposition` that saves under this name; also for clients that read ASCII only."""
    plain = "".join(c if c.isascii() and c not in '"\\%' else "_" for c in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _bytes(
    rt: Runtime, request: Request, file: File, part: Range, headers: Mapping[str, str], *, status: int = 200
) -> Response:
    """These bytes, a chunk at a time; of a HEAD only how many."""
    sized = {**headers, "Content-Length": str(part.stop - part.start)}
    if request.method == "HEAD":
        return Response(status_code=status, headers=sized, media_type=JSONL.type)
    found: AsyncIterator[bytes] = content(rt.db, file.id, part.start, part.stop)
    return StreamingResponse(found, status_code=status, headers=sized, media_type=JSONL.type)


async def _find(tx: Tx, caller: Caller, file_id: str) -> File:
    """A file of the caller's team. Raises NotFound, also for the files of others."""
    found = ids.parse_file(file_id)
    file = None if found is None else await files.read(tx, found, caller.team.team_id)
    if file is None:
        raise _unknown(file_id)
    return file


def _unknown(file_id: str) -> NotFound:
    return NotFound(f"No such File object: {file_id}", param="id")


def _cursor(text: str) -> UUID:
    found = ids.parse_file(text)
    if found is None:
        raise Invalid.at(["query", "after"], "Input should be a file's id, file- and 32 hex digits", "value_error.id")
    return found
