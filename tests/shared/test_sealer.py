"""Secrets at rest: opened only for what they were sealed for, and by any key of the ring."""

import base64

import pytest

from shared.sealer import CannotOpen, Sealer

OLD, NEW = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))


def test_what_is_sealed_opens_again_and_never_looks_the_same():
    sealer = Sealer(OLD)
    first, second = (sealer.seal("sk-secret", purpose="a") for _ in range(2))
    assert sealer.open(first, purpose="a") == "sk-secret"
    assert first != second
    assert b"sk-secret" not in first


def test_it_opens_for_its_own_purpose_only():
    sealer = Sealer(OLD)
    with pytest.raises(CannotOpen):
        sealer.open(sealer.seal("sk-secret", purpose="model_aliases.api_key:a"), purpose="model_aliases.api_key:b")


def test_the_newest_key_seals_and_older_ones_still_open():
    sealed = Sealer(OLD).seal("sk-secret", purpose="a")
    both = Sealer(f"{NEW}, {OLD}")
    assert both.open(sealed, purpose="a") == "sk-secret"
    with pytest.raises(CannotOpen):
        Sealer(OLD).open(both.seal("sk-secret", purpose="a"), purpose="a")


@pytest.mark.parametrize(
    "damage", [lambda s: s[:-1] + bytes([s[-1] ^ 1]), lambda s: s[:20], lambda _: b"", lambda s: b"\x02" + s[1:]]
)
def test_a_damaged_secret_does_not_open(damage):
    sealer = Sealer(OLD)
    with pytest.raises(CannotOpen):
        sealer.open(damage(sealer.seal("sk-secret", purpose="a")), purpose="a")


@pytest.mark.parametrize("keys", ["", "short", base64.b64encode(b"x" * 16).decode(), f"{OLD},"])
def test_a_ring_with_a_bad_key_is_refused(keys: str):
    with pytest.raises(ValueError, match="WAYBILL_ENCRYPTION_KEY"):
        Sealer(keys)
