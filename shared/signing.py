"""Standard Webhooks 1.0.0: signatures over `{id}.{timestamp}.{body}`, one per key.

scheme  algorithm    our key                    what the receiver has
v1      HMAC-SHA256  whsec_ base64 24..64 bytes the same secret
v1a     ed25519      whsk_  base64 32 bytes     whpk_ base64 32 bytes, also as a JWK
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Scheme = Literal["v1", "v1a", "both"]

PREFIX = "whsec_"
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
SEED_BYTES = 32
KEYS_KEPT = 1024
"""Private keys held ready for signing: setting one up costs about as much as a signature."""


def secret_bytes(secret: str) -> bytes:
    """The key inside `whsec_<base64 of 24..64 bytes>`. Raises ValueError, which never shows the secret."""
    key = _decoded(secret, PREFIX)
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError("must be whsec_ and base64 of 24 to 64 bytes")
    return key


def new_webhook_secret() -> str:
    """`whsec_` and base64 of 32 random bytes, as Standard Webhooks writes it."""
    return PREFIX + base64.b64encode(os.urandom(32)).decode()


def new_private_key() -> str:
    """`whsk_` and base64 of the 32 random bytes of an ed25519 key; it never leaves us."""
    return PRIVATE_PREFIX + base64.b64encode(os.urandom(SEED_BYTES)).decode()


def public_key(private: str) -> str:
    """The `whpk_…` with which receivers check what this `whsk_…` signs. Raises ValueError."""
    return PUBLIC_PREFIX + base64.b64encode(_private_key(private).public_key().public_bytes_raw()).decode()


def jwk(public: str, *, kid: str) -> dict[str, str]:
    """A `whpk_…` as a member of a JWKS (RFC 8037)."""
    x = base64.urlsafe_b64encode(_decoded(public, PUBLIC_PREFIX)).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "use": "sig", "alg": "EdDSA"}


def chosen(secrets: Sequence[str], scheme: Scheme) -> list[str]:
    """Those of these keys that sign for an endpoint with this `signing`, in their order."""
    prefixes = {"v1": (PREFIX,), "v1a": (PRIVATE_PREFIX,), "both": (PREFIX, PRIVATE_PREFIX)}[scheme]
    return [secret for secret in secrets if secret.startswith(prefixes)]


def headers(secrets: Sequence[str], *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three `webhook-*` headers of one attempt.

    secrets: `whsec_…` and `whsk_…`, several during a rotation; a receiver accepts when one signature is right.
    timestamp: unix seconds of this attempt, not of the event.
    Raises ValueError without a key, or for one of another form; it never shows a key.
    """
    if not secrets:
        raise ValueError("there is no key to sign with")
    signed = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(secret, signed) for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    if secret.startswith(PRIVATE_PREFIX):
        return "v1a," + base64.b64encode(_private_key(secret).sign(signed)).decode()
    return "v1," + base64.b64encode(hmac.new(secret_bytes(secret), signed, hashlib.sha256).digest()).decode()


@lru_cache(maxsize=KEYS_KEPT)
def _private_key(private: str) -> Ed25519PrivateKey:
    seed = _decoded(private, PRIVATE_PREFIX)
    if len(seed) != SEED_BYTES:
        raise ValueError("must be whsk_ and base64 of 32 bytes")
    return Ed25519PrivateKey.from_private_bytes(seed)


def _decoded(text: str, prefix: str) -> bytes:
    """The bytes behind the prefix; none when the text has another form."""
    if not text.startswith(prefix):
        return b""
    try:
        return base64.b64decode(text.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        return b""
