"""Taking secrets out of providers' texts before they are stored or shown."""

import re
from collections.abc import Iterable
from urllib.parse import quote

from shared.failures import MAX_MESSAGE

HIDDEN = "[hidden]"
MIN_SECRET = 6
"""Shorter values are words like `none`: replacing them would only garble the text."""
MAX_TEXT = 20 * MAX_MESSAGE

PATTERNS = (
    re.compile(r"(?i)\b(?:bearer|basic)\s+[\w.~+/=:*-]{4,}"),
    re.compile(r"(?i)\b(?:sk|pk|rk|gsk|xai|hf|r8|nvapi|pplx|whsec|ghp|csk)[-_][\w*.-]{6,}"),
    re.compile(r"\bAIza[\w-]{20,}"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.?[\w-]*"),
)
NAMED = re.compile(
    r"""(?ix)\b((?:[\w-]*(?:api[_-]?key|authorization|secret|token|password))["']?\s*[:=]\s*["']?)([\w.~+/=*-]{8,})"""
)
URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)(?:[^\s/@\"'<>]+@)?([^\s?#\"'<>]*)(?:[?#][^\s\"'<>]*)?")
PUBLIC = re.compile(
    r"(?i)https://(?!api\.)(?:[a-z0-9-]+\.)+(?!(?:internal|local|lan|corp|svc|home)\b)[a-z]{2,}(?:/.*)?"
)
"""A page that a provider points its customers to; any other address may be one that we ask."""


def scrub(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets given, without whatever looks like one, and without addresses; <= 1000 long.

    secrets: also the address that was asked. Of public pages the query is taken out.
    """
    text = text[:MAX_TEXT]
    for secret in sorted((secret.strip() for secret in secrets), key=len, reverse=True):
        if len(secret) >= MIN_SECRET:
            for form in (secret, quote(secret, safe=""), secret.encode("unicode_escape").decode()):
                text = text.replace(form, HIDDEN)
    text = URL.sub(_shown_url, text)
    for pattern in PATTERNS:
        text = pattern.sub(HIDDEN, text)
    text = NAMED.sub(rf"\1{HIDDEN}", text)
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:MAX_MESSAGE]


def _shown_url(found: re.Match[str]) -> str:
    bare = found[1] + found[2]
    return bare if PUBLIC.fullmatch(bare) else HIDDEN
