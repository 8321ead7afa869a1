"""Ids: UUIDv7 made by the application, so that they are known before the row is written and sort by time."""

from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

Fence = tuple[UUID, int]
"""A row's id and the attempt number under which a worker holds it: who may close it."""


def new() -> UUID:
    """A fresh id that sorts after those made before it on this host."""
    return uuid7()


def earliest(at: datetime) -> UUID:
    """The lowest id there is of a moment: what was made later sorts after it."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def parse(text: str) -> UUID | None:
    """The id in a path, or None when it is malformed (the caller answers its 404)."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text.lower() else None


def batch(id_: UUID) -> str:
    """A batch as clients know it; its job has the same id."""
    return prefixed("batch", id_)


def parse_batch(text: str) -> UUID | None:
    """The id in `batch_019aa3c2…`, or None when it is malformed."""
    return parse_prefixed("batch", text)


def file(id_: UUID) -> str:
    """A file as clients know it: OpenAI's have a dash."""
    return prefixed("file", id_, mark="-")


def parse_file(text: str) -> UUID | None:
    """The id in `file-019aa3c2…`, or None when it is malformed."""
    return parse_prefixed("file", text, mark="-")


def prefixed(prefix: str, id_: UUID, *, mark: str = "_") -> str:
    """`evt_019aa3c2…`: the prefix, a mark and 32 hex digits."""
    return f"{prefix}{mark}{id_.hex}"


def parse_prefixed(prefix: str, text: str, *, mark: str = "_") -> UUID | None:
    """The id in `evt_019aa3c2…`, or None when it is malformed."""
    found, _, digits = text.partition(mark)
    if found != prefix or len(digits) != 32 or not digits.isalnum() or digits != digits.lower():
        return None
    try:
        return UUID(hex=digits)
    except ValueError:
        return None
