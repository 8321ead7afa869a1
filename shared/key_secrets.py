"""The secret of a virtual key: how it is made, under which hash it is stored, and what is shown of it."""

import hashlib
import secrets

MIN_HINT_LENGTH = 16


def new_virtual_key() -> str:
    """`sk-` and 43 URL-safe characters (32 random bytes)."""
    return "sk-" + secrets.token_urlsafe(32)


def key_hash(key: str) -> bytes:
    """What is stored and looked up instead of a virtual key; keys are random, so one round of SHA-256 is enough."""
    return hashlib.sha256(key.encode()).digest()


def hint(key: str) -> str:
    """`sk-...4f2a`; keys under 16 characters show no digit of themselves."""
    return f"sk-...{key[-4:]}" if len(key) >= MIN_HINT_LENGTH else "sk-..."


def same(left: str, right: str) -> bool:
    """Compare two secrets in constant time."""
    return secrets.compare_digest(left.encode(), right.encode())
