"""Secrets at rest: AES-256-GCM, bound to what they belong to."""

import base64
import binascii
import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = b"\x01"
NONCE_BYTES = 12
KEY_BYTES = 32
KEY_ID_BYTES = 4


class CannotOpen(Exception):
    """The sealed value was made with another key, for another row, or is damaged."""


class Sealer:
    """Seals with the first key of the ring and opens with any; a value opens only for the purpose it was sealed for.

    keys: comma-separated base64 of 32 random bytes each, newest first (`WAYBILL_ENCRYPTION_KEY`).
    Sealed form: 1 byte format, 4 bytes key id, 12 bytes nonce, ciphertext with tag.
    """

    def __init__(self, keys: str) -> None:
        self._ring = {self._key_id(key): AESGCM(key) for key in map(_decoded, keys.split(","))}
        self._newest = self._key_id(_decoded(keys.split(",", maxsplit=1)[0]))

    def seal(self, secret: str, *, purpose: str) -> bytes:
        """purpose: what the secret is and whose, e.g. `model_aliases.api_key:gpt-4`; the same is needed to open."""
        nonce = os.urandom(NONCE_BYTES)
        return (
            FORMAT + self._newest + nonce + self._ring[self._newest].encrypt(nonce, secret.encode(), purpose.encode())
        )

    @property
    def newest(self) -> bytes:
        """How everything begins that is sealed with the newest key."""
        return FORMAT + self._newest

    def open(self, sealed: bytes, *, purpose: str) -> str:
        """The secret again. Raises CannotOpen."""
        body = bytes(sealed)
        cipher = self._ring.get(body[1 : 1 + KEY_ID_BYTES])
        if body[:1] != FORMAT or cipher is None:
            raise CannotOpen("unknown key or format")
        start = 1 + KEY_ID_BYTES
        try:
            return cipher.decrypt(
                body[start : start + NONCE_BYTES], body[start + NONCE_BYTES :], purpose.encode()
            ).decode()
        except InvalidTag:
            raise CannotOpen("sealed for something else, or damaged") from None

    @staticmethod
    def _key_id(key: bytes) -> bytes:
        return hashlib.sha256(b"waybill key id" + key).digest()[:KEY_ID_BYTES]


def _decoded(key: str) -> bytes:
    try:
        decoded = base64.b64decode(key.strip(), validate=True)
    except binascii.Error:
        decoded = b""
    if len(decoded) != KEY_BYTES:
        raise ValueError("WAYBILL_ENCRYPTION_KEY must be base64 of 32 bytes (several: comma-separated, newest first)")
    return decoded
