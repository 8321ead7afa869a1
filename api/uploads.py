"""Bodies that become files while they come: never whole in memory, nor on this machine's disk.

client ── pieces ──→ multipart parts, or the body itself ── FileWriter ──→ rows of 1 MiB ── Upload.finish ──→ a file
                                                                                └──── Upload.discard ───→ nothing
"""

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import multipart  # type: ignore[import-untyped]
from starlette.requests import Request

from api.auth import Caller
from api.body import announced, pieces
from api.desk import Desk
from api.http import validated
from api.once import is_repeat, key_of
from api.wire.files import ANCHOR, SECONDS, ExpiresAfter, UploadIn
from shared import files, ids, log
from shared.db import Tx, is_down
from shared.errors import BadRequest, BodyTooLarge, Invalid, WaybillError
from shared.file_writing import FileWriter
from shared.files import KEPT_S, FileGone
from shared.runtime import Runtime
from shared.states import FilePurpose
from shared.wire.findings import MISSING

logger = log.get(__name__)

MOST_BYTES = 512 * 1024 * 1024
MULTIPART = "multipart/form-data"
FORM_BYTES = 64 * 1024
"""What a multipart body may have besides its file."""
MOST_PARTS = 16
MOST_FIELD = 256
MOST_BOUNDARY = 70
FIELDS = ("purpose", ANCHOR, SECONDS)
MOST_NAME = 255
NAMELESS = "file"
NAME_PARTS = re.compile(r"[/\\]")
HOW = "Send the file as multipart/form-data with the parts 'file' and 'purpose'"


class FileTooLarge(WaybillError):
    """The file is over the limit."""

    status, code = 413, "file_too_large"

    def __init__(self, limit_bytes: int = MOST_BYTES) -> None:
        super().__init__(f"The file is too large: at most {limit_bytes // 2**20} MB are taken")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What came in, stored and not to be seen yet. fingerprint: empty unless an Idempotency-Key asks for it."""

    writer: FileWriter
    fingerprint: bytes
    expires_after_s: int = KEPT_S

    @property
    def file_id(self) -> UUID:
        """The id it has, and will have as a file."""
        return self.writer.file_id

    async def finish(self, tx: Tx) -> None:
        """Make it a file in this transaction. Raises FileGone."""
        writer = self.writer
        if not await files.finish(tx, self.file_id, writer.bytes, expires_after_s=self.expires_after_s):
            raise FileGone("The upload took too long: its first bytes are deleted already")

    async def discard(self) -> None:
        """Delete what was not made a file; what a fault leaves, retention deletes."""
        await _discard(self.writer)


async def stored_body(rt: Runtime, caller: Caller, request: Request, *, filename: str, limit_bytes: int) -> Upload:
    """The body itself as a file for batches.

    Raises FileTooLarge, TeamFilesFull, BodyStalled, BadRequest (a packed one), TooManyUploads.
    """
    writer, digest = await _writer(rt, caller, request, filename), _digest(request)
    async with _whole_or_nothing(writer, limit_bytes, _place(caller, request)):
        await writer.find_room(min(announced(request), limit_bytes))
        async for piece in pieces(request, limit_bytes):
            if digest is not None:
                digest.update(piece)
            await writer.write(piece)
        await writer.flush()
    return Upload(writer=writer, fingerprint=b"" if digest is None else digest.digest())


async def receive_file(rt: Runtime, caller: Caller, request: Request, *, limit_bytes: int = MOST_BYTES) -> Upload:
    """The file of a multipart body, with the fields that came before or after it.

    Raises BadRequest and Invalid (what is said in the body), FileTooLarge, TeamFilesFull, BodyStalled, TooManyUploads.
    """
    form = Form(await _writer(rt, caller, request, NAMELESS), request, limit_bytes)
    async with _whole_or_nothing(form.writer, limit_bytes, _place(caller, request)):
        await form.writer.find_room(min(max(0, announced(request) - FORM_BYTES), limit_bytes))
        async for piece in pieces(request, limit_bytes + FORM_BYTES):
            await form.take(piece)
        return await form.whole()


class Form:
    """A multipart body on its way: its one file goes to rows, its few short fields are kept."""

    def __init__(self, writer: FileWriter, request: Request, limit_bytes: int) -> None:
        self.writer = writer
        self._limit_bytes = limit_bytes
        self._parser = multipart.PushMultipartParser(_boundary(request), max_segment_count=MOST_PARTS)
        self._digest = _digest(request)
        self._part: Any = None
        self._text = bytearray()
        self._fields: dict[str, str] = {}
        self._has_file = False

    async def take(self, piece: bytes) -> None:
        """What the client sent next. Raises MultipartError, BadRequest, Invalid (the purpose), as `write` does."""
        for event in self._parser.parse(piece) if piece else ():
            if isinstance(event, multipart.MultipartSegment):
                self._begin(event)
            elif event is None:
                self._end()
            else:
                await self._add(event)

    async def whole(self) -> Upload:
        """All of it, once the client has sent everything. Raises MultipartError, Invalid."""
        self._parser.close()
        asked = validated(UploadIn, _folded(self._fields), "body")
        if not self._has_file:
            raise Invalid([{"loc": ["body", "file"], **MISSING}])
        await self.writer.flush()
        after: ExpiresAfter | None = asked.expires_after
        return Upload(
            writer=self.writer,
            fingerprint=self._fingerprint(),
            expires_after_s=KEPT_S if after is None else after.seconds,
        )

    def _begin(self, part: Any) -> None:
        self._part = part
        self._text.clear()
        if part.name != "file":
            return
        if not part.filename:
            raise BadRequest("'file' came as text and not as a file: with curl write -F file=@in.jsonl", param="file")
        if self._has_file:
            raise BadRequest("One file at a time: 'file' came twice", param="file")
        self._has_file = True
        self.writer.filename = _cleaned(part.filename)

    async def _add(self, data: bytes) -> None:
        if self._part.name == "file":
            if self._part.bytes_received > self._limit_bytes:
                raise FileTooLarge(self._limit_bytes)
            if self._digest is not None:
                self._digest.update(data)
            await self.writer.write(data)
        elif self._part.name in FIELDS:
            self._text += data
            if len(self._text) > MOST_FIELD:
                raise BadRequest(f"'{self._part.name}' is too long", param=self._part.name)

    def _end(self) -> None:
        name = self._part.name
        if name in self._fields:
            raise BadRequest(f"'{name}' came twice", param=name)
        if name in FIELDS:
            self._fields[name] = self._text.decode(errors="replace")
        if name == "purpose":
            # Clients send it before their file: no byte of one that has no use is stored.
            validated(UploadIn, _folded({name: self._fields[name]}), "body")

    def _fingerprint(self) -> bytes:
        if self._digest is None:
            return b""
        said = [self.writer.filename, *(f"{name}={value}" for name, value in sorted(self._fields.items()))]
        self._digest.update("\0".join(["", *said]).encode())
        found: bytes = self._digest.digest()
        return found


def _folded(fields: dict[str, str]) -> dict[str, Any]:
    """`expires_after[seconds]` as the field of a field."""
    after = {"anchor": fields.get(ANCHOR), "seconds": fields.get(SECONDS)}
    given = {name: value for name, value in after.items() if value is not None}
    plain = {"purpose": fields["purpose"]} if "purpose" in fields else {}
    return {**plain, **({"expires_after": given} if given else {})}


def _boundary(request: Request) -> str:
    """What separates the parts. Raises BadRequest."""
    kind, options = multipart.parse_options_header(request.headers.get("content-type", ""))
    boundary: str = options.get("boundary", "")
    if kind != MULTIPART or not 0 < len(boundary) <= MOST_BOUNDARY or not boundary.isascii():
        raise BadRequest(HOW)
    return boundary


def _cleaned(filename: str) -> str:
    """A client's name for its file without folders and without what cannot be shown."""
    last = NAME_PARTS.split(filename)[-1]
    return "".join(c for c in last if c.isprintable())[:MOST_NAME] or NAMELESS


async def _writer(rt: Runtime, caller: Caller, request: Request, filename: str) -> FileWriter:
    # What is sent again is stored only until it is known for the same, also where its team is full by now.
    bound = None if await is_repeat(rt, caller, request) else rt.settings.team_files_bytes
    purpose, team_id = FilePurpose.BATCH, caller.team.team_id
    return FileWriter(rt.db, file_id=ids.new(), team_id=team_id, purpose=purpose, filename=filename, team_bytes=bound)


def _place(caller: Caller, request: Request) -> AbstractContextManager[None]:
    desk: Desk = request.app.state.desk
    return desk.uploads.one(caller.team.team_id)


def _digest(request: Request) -> Any:
    return None if key_of(request) is None else hashlib.sha256()


@asynccontextmanager
async def _whole_or_nothing(
    writer: FileWriter, limit_bytes: int, room: AbstractContextManager[None]
) -> AsyncIterator[None]:
    """Nothing is left of a body that is refused or breaks off, and the client is told in words about its file."""
    try:
        with room:
            yield
    except BaseException as error:
        await _discard(writer)
        if isinstance(error, BodyTooLarge):
            raise FileTooLarge(limit_bytes) from None
        if isinstance(error, multipart.MultipartError):
            raise BadRequest(f"The multipart body cannot be read: {error}") from None
        raise


async def _discard(writer: FileWriter) -> None:
    try:
        await writer.discard()
    except Exception as error:
        if not is_down(error):
            raise
        logger.warning("upload_left_behind", file_id=ids.file(writer.file_id), error=type(error).__name__)
