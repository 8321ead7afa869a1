"""The lines of a batch's input file, checked one by one, without a database: what each asks for, or what is wrong."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from shared.errors import Forbidden, Invalid, Unavailable, Unpriced, WaybillError
from shared.json_text import parse_json
from shared.states import Endpoint
from shared.wire.findings import MISSING, findings, names_of, path, sentence
from shared.wire.gateway import ChatIn, CompletionIn, EmbeddingIn, Streamed

Body = ChatIn | CompletionIn | EmbeddingIn

BODIES: Mapping[Endpoint, type[ChatIn] | type[CompletionIn] | type[EmbeddingIn]] = {
    Endpoint.CHAT: ChatIn,
    Endpoint.COMPLETION: CompletionIn,
    Endpoint.EMBEDDING: EmbeddingIn,
}

MOST_LINES = 50_000
MOST_FAULTS = 1_000
MOST_CUSTOM_ID = 512
MOST_SHOWN = 64
"""Characters of a custom_id that a message repeats."""
DIGEST_BYTES = 16

PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")
"""How gzip, zip and zstd begin."""
INVALID_JSON, MISSING_FIELD, INVALID = "invalid_json_line", "missing_required_field", "invalid_request"
REQUIRED = ("custom_id", "method", "url", "body")


class Fault(NamedTuple):
    """Why a batch is refused. line: of the file, from 1; None where it is about the whole. owner: of a full budget."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    owner: str | None = None

    def stored(self) -> dict[str, Any]:
        """As it is kept on the batch's row; clients are told of no owner."""
        found = self._asdict()
        if self.owner is None:
            del found["owner"]
        return found


class Faulty(Exception):
    """A line is not in order."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(code)
        self.code, self.message, self.param = code, message, param

    def at(self, position: int) -> Fault:
        """The fault of the line at this position."""
        return Fault(self.code, self.message, self.param, position + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line that is in order as far as it can be told without its model. position: its place in the file, from 0."""

    position: int
    custom_id: str
    body: Body


class LineChecks:
    """One pass over the lines of one batch; remembers which custom_ids were used where, in some 150 bytes for each."""

    def __init__(self, endpoint: Endpoint, *, longest: int, most: int = MOST_LINES) -> None:
        self._model = BODIES[endpoint]
        self._names = names_of(self._model)
        self._url = endpoint.path
        self._longest = longest
        self._most = most
        self._lines = 0
        self._used: dict[bytes, int] = {}

    @property
    def is_over(self) -> bool:
        """Whether there were more lines than a batch may have: nobody looks at the rest."""
        return self._lines > self._most

    def line(self, position: int, raw: bytes | None) -> Line:
        """What the line asks for. raw: None for one that is too long. Raises Faulty with the first thing wrong."""
        self._lines += 1
        if self.is_over:
            raise Faulty("too_many_lines", f"A batch may have at most {self._most} lines")
        given = self._object(raw)
        for name in REQUIRED:
            if given.get(name) is None:
                raise Faulty(MISSING_FIELD, sentence(name, MISSING["msg"], ""), name)
        custom_id = self._custom_id(position, given["custom_id"])
        if given["method"] != "POST":
            raise Faulty("invalid_method", "method must be 'POST'", "method")
        if given["url"] != self._url:
            raise Faulty("invalid_url", f"url must be '{self._url}', the endpoint of this batch", "url")
        return Line(position=position, custom_id=custom_id, body=self._body(given["body"]))

    def _object(self, raw: bytes | None) -> dict[str, Any]:
        if raw is None:
            raise Faulty(INVALID_JSON, f"The line is longer than {self._longest} bytes")
        try:
            given = parse_json(raw)
        except Invalid as error:
            raise Faulty(INVALID_JSON, _why_no_json(error, raw)) from None
        if isinstance(given, list):
            raise Faulty(INVALID_JSON, "The line is a JSON array: write one object per line")
        if not isinstance(given, dict):
            raise Faulty(INVALID_JSON, "The line is not a JSON object")
        return given

    def _custom_id(self, position: int, given: object) -> str:
        if not isinstance(given, str) or not 0 < len(given) <= MOST_CUSTOM_ID:
            raise Faulty(INVALID, f"custom_id must be a string of 1 to {MOST_CUSTOM_ID} characters", "custom_id")
        digest = hashlib.blake2b(given.encode(), digest_size=DIGEST_BYTES).digest()
        first = self._used.setdefault(digest, position)
        if first != position:
            shown = given if len(given) <= MOST_SHOWN else f"{given[:MOST_SHOWN]}…"
            told = f"custom_id '{shown}' is used on lines {first + 1} and {position + 1}"
            raise Faulty("duplicate_custom_id", told, "custom_id")
        return given

    def _body(self, given: object) -> Body:
        if isinstance(given, dict) and given.get("stream") is True and issubclass(self._model, Streamed):
            raise Faulty("stream_not_supported", "Streaming is not supported in batches", "body.stream")
        try:
            return self._model.model_validate(given)
        except ValidationError as error:
            found = findings(error, "body", self._names)[0]
        param = path(found["loc"])
        code = MISSING_FIELD if found["msg"] == MISSING["msg"] else INVALID
        raise Faulty(code, sentence(param, found["msg"], found["type"]), param)


def of_route(error: WaybillError) -> Faulty:
    """Why a line cannot go where it asks to: the model, or one of its fallbacks, cannot be used."""
    param = f"body.{error.param or 'model'}"
    if isinstance(error, Unpriced):
        return Faulty("model_unpriced", "model has no price", param)
    if isinstance(error, Unavailable):
        return Faulty("model_unavailable", str(error.detail), param)
    if isinstance(error, Forbidden):
        return Faulty("model_not_found", str(error.detail), param)
    raise error


def _why_no_json(error: Invalid, raw: bytes) -> str:
    """What to change, where the bytes tell what kind of file it is."""
    finding: Any = error.detail[0]
    if finding["type"] != "json_invalid":
        return f"The line cannot be taken: {finding['msg']}"
    if raw.startswith(PACKED):
        return "The file is packed: send it unpacked"
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "The line is not UTF-8"
    if b"\x00" in raw:
        return "The line is not UTF-8 text: it has NUL bytes"
    if b"}\r" in raw.rstrip(b"\r"):
        return "The line is not valid JSON: lines must end with a line feed"
    place = f" (character {finding['loc'][1]})" if finding["loc"][1] else ""
    return f"The line is not valid JSON{place}: each line must be one whole JSON object"
