"""How long a client wants to wait (RFC 7240), and conditional reads."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request

from api.replies import Reply
from api.waiting import MAX_WAIT_S


@dataclass(frozen=True, kw_only=True)
class Preference:
    """What the client asked for: `wait_s` None where it did not say."""

    wait_s: float | None
    applied: str | None

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says of it."""
        if self.applied is None:
            return {}
        return {"Preference-Applied": self.applied, "Vary": "Prefer"}


def preference(request: Request, query_wait: float | None = None, *, most_s: float = MAX_WAIT_S) -> Preference:
    """`Prefer: wait=N`, `Prefer: respond-async` (both: as wait), or `?wait=N`; N is clamped to 0..most_s."""
    asked = [
        part.partition(";")[0].strip() for header in request.headers.getlist("prefer") for part in header.split(",")
    ]
    for part in asked:
        name, _, value = part.partition("=")
        if name.strip().lower() == "wait" and _is_number(value.strip().strip('"')):
            wait_s = _clamped(float(value.strip().strip('"')), most_s)
            return Preference(wait_s=wait_s, applied=f"wait={wait_s:g}")
    if query_wait is not None:
        return Preference(wait_s=_clamped(query_wait, most_s), applied=None)
    if "respond-async" in (part.lower() for part in asked):
        return Preference(wait_s=0, applied="respond-async")
    return Preference(wait_s=None, applied=None)


def etag(body: dict[str, Any], guesses: Collection[str] = ()) -> str:
    """A strong entity tag of a JSON body.

    guesses: fields that are another with every read though nothing has happened; they are left out.
    """
    known = {name: value for name, value in body.items() if name not in guesses} if guesses else body
    return f'"{hashlib.sha256(orjson.dumps(known)).hexdigest()[:32]}"'


def conditional(
    request: Request, body: dict[str, Any], headers: dict[str, str], guesses: Collection[str] = ()
) -> Reply:
    """200 with the body and its ETag, or 304 when the client has it already; guesses as `etag` takes them."""
    tag = etag(body, guesses)
    if matches(request, tag):
        return Reply(status=304, headers={"ETag": tag, **headers})
    return Reply(body=body, headers={"ETag": tag, **headers})


def matches(request: Request, tag: str) -> bool:
    """Whether `If-None-Match` names this tag."""
    known = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    return tag in known or "*" in known


def _clamped(seconds: float, most_s: float) -> float:
    return min(most_s, max(0.0, seconds))


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False
