"""Standard Webhooks 1.0.0, scheme v1: HMAC-SHA256 over `{id}.{timestamp}.{body}`, one signature per secret."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64


def secret_bytes(secret: str) -> bytes:
    """The key inside `whsec_<base64 of 24..64 bytes>`. Raises ValueError, which never shows the secret."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError("must be whsec_ and base64 of 24 to 64 bytes")
    return key


def headers(secrets: Sequence[str], *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three `webhook-*` headers of one attempt.

    secrets: several during a rotation; a receiver accepts when one of the signatures is right.
    timestamp: unix seconds of this attempt, not of the event.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_v1(secret_bytes(secret), signed) for secret in secrets),
    }


def _v1(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
