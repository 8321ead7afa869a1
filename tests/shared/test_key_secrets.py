"""Secrets of virtual keys: random, stored as a hash, shown by their end."""

from shared import key_secrets


def test_virtual_keys_are_random_and_shown_by_their_end_only():
    key = key_secrets.new_virtual_key()
    assert key.startswith("sk-")
    assert len(key) == 46
    assert key != key_secrets.new_virtual_key()
    assert key_secrets.hint(key) == f"sk-...{key[-4:]}"
    assert key_secrets.hint("sk-short-key") == "sk-..."
    assert len(key_secrets.key_hash(key)) == 32
    assert key_secrets.same(key, key)
    assert not key_secrets.same(key, key + "x")
