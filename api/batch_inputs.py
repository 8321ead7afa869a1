"""Where the lines of a new batch come from: an uploaded file, the body itself line by line, or inside a JSON body.

Whatever it is, it is a file in the end: what did not come as one is stored as one, and seen once its batch is made.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

import orjson
from starlette.requests import Request

from api import uploads
from api.auth import Caller
from api.body import read_body
from api.desk import Desk
from api.http import query_of
from api.once import is_repeat
from api.uploads import MULTIPART, Upload
from api.wire.batches import BODY_ONLY, LINES_ONLY, OUTPUT_SECONDS, BatchIn, BatchQuery
from api.wire.files import ExpiresAfter
from shared import files, ids
from shared.batches import MOST_INPUT_BYTES
from shared.db import Tx
from shared.errors import BadRequest, BodyTooLarge, Invalid, Unavailable, WaybillError
from shared.file_writing import FileWriter
from shared.json_text import MAX_VALUES, has_too_many_values
from shared.keys import Key
from shared.runtime import Runtime
from shared.states import FilePurpose

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
DRY_RUN_KEPT_S = 3600
"""How long lines that came with a dry run are kept, when they are not removed right after it."""
LOOKED_AT = 1024
"""Bytes behind the first line that tell whether there are more."""
UPLOAD_FIRST = "Upload the file at /v1/files first, or send its lines as the body, as application/x-ndjson"
SEND_MORE = f"send up to {MOST_INPUT_BYTES >> 20} MB of lines as application/x-ndjson, or upload a file at /v1/files"
SAY_LINES = "The body is lines: send it with Content-Type: application/x-ndjson, and its endpoint in the query"
NO_FILE = "No such file of purpose 'batch': upload it again"


class JsonTooLarge(BodyTooLarge):
    """The JSON body is over the limit; lines and files may be longer."""

    def __init__(self, limit_bytes: int) -> None:
        WaybillError.__init__(self, f"A JSON body may have at most {limit_bytes / 2**20:g} MB: {SEND_MORE}")


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """The file of a new batch.

    finish: keeps it, in the transaction that makes the batch; raises FileGone or BadRequest when it is not there.
    brought: its id when it came with the request, and nobody else knows of it.
    """

    file_id: UUID
    finish: Callable[[Tx], Awaitable[None]]
    brought: UUID | None = None


async def received_lines(rt: Runtime, caller: Caller, request: Request) -> Upload | None:
    """The body stored as it comes when its Content-Type says that it is lines; None: it is JSON.

    Raises BadRequest and Invalid for what does not go together, before anything is read where that is enough;
    FileTooLarge, TeamFilesFull, JsonTooLarge; Unavailable when no new work is taken.
    """
    type_ = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_lines = type_ in NDJSON
    if type_ == MULTIPART:
        raise BadRequest(UPLOAD_FIRST)
    for name in request.query_params:
        _check_place(name, is_lines=is_lines)
    if not is_lines:
        await _check_json(request, rt.settings.max_body_bytes)
        return None
    asked_in_query(query_of(request, BatchQuery))
    await _ask_door(rt, caller, request)
    return await uploads.stored_body(rt, caller, request, filename=files.BROUGHT, limit_bytes=MOST_INPUT_BYTES)


def asked_in_query(query: BatchQuery) -> BatchIn:
    """What is asked beside a body of lines. Raises Invalid."""
    for name in ("endpoint", "completion_window"):
        if getattr(query, name) is None:
            raise Invalid.at(["query", name], "field required", "value_error.missing")
    if query.output_anchor is not None and query.output_seconds is None:
        raise Invalid.at(["query", OUTPUT_SECONDS], "field required", "value_error.missing")
    kept = None if query.output_seconds is None else ExpiresAfter(anchor="created_at", seconds=query.output_seconds)
    said = query.model_dump(exclude={"output_anchor", "output_seconds"})
    return BatchIn.model_construct(**said, output_expires_after=kept)


def uploaded(file_id: UUID, team_id: str, *, gone: str = NO_FILE) -> InputFile:
    """A file that the team uploaded before: nobody deletes it once its batch is there.

    gone: what is said when somebody did before that.
    """

    async def finish(tx: Tx) -> None:
        if not await files.hold(tx, file_id, team_id):
            raise BadRequest(gone, param="input_file_id")

    return InputFile(file_id=file_id, finish=finish)


@asynccontextmanager
async def opened(
    rt: Runtime, key: Key, body: BatchIn, received: Upload | None, *, dry_run: bool
) -> AsyncIterator[InputFile]:
    """The lines of a batch while it is made; what came with the request is taken away when it is refused.

    Raises BadRequest, Invalid, TeamFilesFull.
    """
    kept_s = DRY_RUN_KEPT_S if dry_run else files.KEPT_S
    if received is not None:
        # Taken away by the edge.
        yield _brought(replace(received, expires_after_s=kept_s))
        return
    if (body.input_file_id is None) == (body.requests is None):
        raise BadRequest("Send one of 'input_file_id' and 'requests'", param="input_file_id")
    if body.requests is None:
        yield await _found(rt, key, ids.parse_file(body.input_file_id or ""))
        return
    upload = _unwritten(rt, key, kept_s=kept_s)
    try:
        await _write(upload.writer, body)
        yield _brought(upload)
    except BaseException:
        await upload.discard()
        raise


async def _ask_door(rt: Runtime, caller: Caller, request: Request) -> None:
    """Refuse while no new work is taken, before 200 MB are stored for nothing; a repeat is told what it was told."""
    desk: Desk = request.app.state.desk
    try:
        desk.door.check()
    except Unavailable:
        if not await is_repeat(rt, caller, request):
            raise


def _check_place(name: str, *, is_lines: bool) -> None:
    """Whether a parameter of the query counts with this kind of body: nothing is passed over in silence.

    Raises BadRequest.
    """
    if name in BODY_ONLY:
        raise BadRequest(f"'{name}' belongs in a JSON body and not in the query", param=name)
    if name in LINES_ONLY and not is_lines:
        told = "is for lines as the body, sent with Content-Type: application/x-ndjson; a JSON body says it itself"
        raise BadRequest(f"'{name}' in the query {told}", param=name)


async def _check_json(request: Request, limit_bytes: int) -> None:
    """Refuse what would better come as lines, and lines that do not say so: JSON has nothing behind its end.

    Raises BadRequest, Invalid, JsonTooLarge.
    """
    try:
        raw = await read_body(request, limit_bytes)
    except BodyTooLarge:
        raise JsonTooLarge(limit_bytes) from None
    if has_too_many_values(raw):
        raise Invalid.at(["body"], f"holds more than {MAX_VALUES} values: {SEND_MORE}", "value_error.too_many_values")
    end = raw.find(b"\n") if raw.startswith(b"{") else -1
    if end > 0 and raw[end : end + LOOKED_AT].strip() and _is_json(raw[:end]):
        raise BadRequest(SAY_LINES)


def _is_json(raw: bytes) -> bool:
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return True


async def _found(rt: Runtime, key: Key, file_id: UUID | None) -> InputFile:
    async with rt.db.hot_statement() as tx:
        found = None if file_id is None else await files.read(tx, file_id, key.team_id)
    if found is None:  # of another purpose: `hold` refuses it
        raise BadRequest(NO_FILE, param="input_file_id")
    if found.bytes > MOST_INPUT_BYTES:
        raise BadRequest(f"The file is over {MOST_INPUT_BYTES >> 20} MB: split it into several", param="input_file_id")
    return uploaded(found.id, key.team_id)


def _brought(upload: Upload) -> InputFile:
    file_id = upload.writer.file_id
    return InputFile(file_id=file_id, finish=upload.finish, brought=file_id)


def _unwritten(rt: Runtime, key: Key, *, kept_s: int) -> Upload:
    """The file that lines of a JSON body become."""
    file_id, purpose = ids.new(), FilePurpose.BATCH
    bound = rt.settings.team_files_bytes
    writer = FileWriter(
        rt.db, file_id=file_id, team_id=key.team_id, purpose=purpose, filename=files.BROUGHT, team_bytes=bound
    )
    return Upload(writer=writer, fingerprint=b"", expires_after_s=kept_s)


async def _write(writer: FileWriter, body: BatchIn) -> None:
    """One line for each request, with the method and the URL that requests leave out."""
    for request in body.requests or ():
        line = {"method": "POST", "url": body.endpoint, **request} if isinstance(request, dict) else request
        await writer.write(orjson.dumps(line) + b"\n")
    await writer.flush()
