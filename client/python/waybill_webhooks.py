"""Check that a webhook was sent by your Waybill. Copy this file into your project: it needs nothing but Python 3.9.

    event = verify(request.headers, raw_body, [secret])

Webhooks follow Standard Webhooks 1.0.0. The header `webhook-signature` lists signatures over
`{webhook-id}.{webhook-timestamp}.{body}`, one per key of the endpoint: `v1,` HMAC-SHA256 (keys `whsec_…`) or `v1a,`
ed25519 (keys `whpk_…`). One that is right is enough. After `verify`:

- Answer 2xx within the endpoint's timeout (15 s unless you changed it). Do slow work after the answer.
- A webhook may come twice. Keep `event["id"]` (the header `webhook-id`, the same in every try) where you keep your
  data, under a unique index and in the same transaction, and answer 2xx to one you know already.
- Events of a job may overtake each other: `event["sequence"]` counts them per job, from 1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

TOLERANCE_S = 300
KEY_BYTES = range(24, 65)
PUBLIC_KEY_BYTES = 32


class WebhookRefused(Exception):
    """The request is not to be believed: answer 400. The message says why and may be logged."""


class MissingHeader(WebhookRefused):
    """One of webhook-id, webhook-timestamp and webhook-signature is not there."""


class WrongTimestamp(WebhookRefused):
    """It was signed too long ago, or in the future: a replay, or one of the two clocks is wrong."""


class WrongSignature(WebhookRefused):
    """No signature is right: another key, or the body is not the one that was sent."""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    keys: Iterable[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> dict[str, Any]:
    """The event that this request carries. Raises WebhookRefused; ValueError when a key of yours has another form.

    headers: of the request, names in any case.
    body: the bytes as they came, before any framework parsed them.
    keys: `whsec_…` or `whpk_…`; give the old one and the new one while you rotate.
    tolerance_s: how far the time of sending may be from `now` (unix seconds; default: this machine's clock).
    """
    if not isinstance(body, (bytes, bytearray)):
        raise TypeError("body must be the raw bytes of the request")
    checks = [_check_of(key) for key in ([keys] if isinstance(keys, str) else keys)]
    if not checks:
        raise ValueError("give at least one key")
    message_id, timestamp, signatures = _read(headers)
    _check_time(timestamp, tolerance_s, time.time() if now is None else now)
    signed = f"{message_id}.{timestamp}.".encode() + bytes(body)
    # All are computed, so that the time this takes says nothing about which one was right.
    results = [check(signed, signature) for check in checks for signature in signatures]
    if not any(results):
        raise WrongSignature("no signature is right for this body and these keys")
    event: dict[str, Any] = json.loads(body)
    return event


def _read(headers: Mapping[str, str]) -> tuple[str, str, list[str]]:
    """Id, timestamp and signatures, as they were sent."""
    found = {str(name).lower(): str(value) for name, value in headers.items()}
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if not found.get(name):
            raise MissingHeader(f"the header {name} is missing")
    return found["webhook-id"], found["webhook-timestamp"], found["webhook-signature"].split()


def _check_time(timestamp: str, tolerance_s: float, now: float) -> None:
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise WrongTimestamp("webhook-timestamp is not a number of seconds")
    age_s = now - int(timestamp)
    if abs(age_s) > tolerance_s:
        raise WrongTimestamp(f"signed {abs(age_s):.0f} s {'ago' if age_s > 0 else 'in the future'}")


class _Secret:
    """Checks `v1,` signatures with a shared secret."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, signed: bytes, signature: str) -> bool:
        right = hmac.new(self._key, signed, hashlib.sha256).digest()
        return hmac.compare_digest(right, _decoded(signature, "v1,"))


class _PublicKey:
    """Checks `v1a,` signatures with a public key."""

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            raise ValueError("whpk_ keys need the package `cryptography`; whsec_ keys do not") from None
        self._key = Ed25519PublicKey.from_public_bytes(key)

    def __call__(self, signed: bytes, signature: str) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(_decoded(signature, "v1a,"), signed)
        except InvalidSignature:
            return False
        return True


def _check_of(key: str) -> _Secret | _PublicKey:
    """What checks signatures of this key. Raises ValueError, which never shows the key."""
    if key.startswith("whpk_"):
        public = _decoded(key, "whpk_")
        if len(public) != PUBLIC_KEY_BYTES:
            raise ValueError("a public key is whpk_ and base64 of 32 bytes")
        return _PublicKey(public)
    secret = _decoded(key, "whsec_")
    if len(secret) not in KEY_BYTES:
        raise ValueError("a secret is whsec_ and base64 of 24 to 64 bytes")
    return _Secret(secret)


def _decoded(text: str, prefix: str) -> bytes:
    """The bytes in base64 behind the prefix; none when it has another form."""
    if not text.startswith(prefix):
        return b""
    try:
        return base64.b64decode(text[len(prefix) :], validate=True)
    except (binascii.Error, ValueError):
        return b""
