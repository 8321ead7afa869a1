"""Names that admins choose: ids of teams, organizations and groups, and alias names, which may hold `/`."""

import re

NAME = re.compile(r"[A-Za-z0-9._:@+-]{1,255}")
ALIAS = re.compile(r"[A-Za-z0-9._:@+/-]{1,255}")
RESERVED = frozenset({"create", "verify", "aliases", "organization"})
"""Words that are path segments of ours."""

UNREACHABLE_SEGMENTS = frozenset({"", ".", ".."})
"""Clients and proxies rewrite a path that holds one of these, so a thing of that name could never be read again."""


def is_name(text: str) -> bool:
    """Whether a thing can have this id at all; a path that holds another one is answered by 404."""
    return NAME.fullmatch(text) is not None


def is_alias(text: str) -> bool:
    """Whether a model or a group can have this name at all."""
    return ALIAS.fullmatch(text) is not None


def checked_name(text: str) -> str:
    """A new id. Raises ValueError."""
    if not is_name(text):
        raise ValueError("must be 1 to 255 of the characters A-Z a-z 0-9 . _ : @ + -")
    return _reachable(text)


def checked_alias(text: str) -> str:
    """A new alias. Raises ValueError."""
    if not is_alias(text):
        raise ValueError("must be 1 to 255 of the characters A-Z a-z 0-9 . _ : @ + - /")
    return _reachable(text)


def _reachable(text: str) -> str:
    if text in RESERVED:
        raise ValueError(f"must not be one of the reserved words {', '.join(sorted(RESERVED))}")
    if not UNREACHABLE_SEGMENTS.isdisjoint(text.split("/")):
        raise ValueError("must not hold an empty, '.' or '..' path segment")
    return text
