"""What is taken out of providers' texts, and what is left."""

import pytest

from workers.scrub import scrub

SECRET = "k3y/with+odd=chars"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"Key {SECRET} is wrong", "Key [hidden] is wrong"),
        ("Key k3y%2Fwith%2Bodd%3Dchars is wrong", "Key [hidden] is wrong"),
        ("Authorization: Bearer abc.def-123", "Authorization: [hidden]"),
        ("Incorrect API key provided: sk-proj-ab**********1234.", "Incorrect API key provided: [hidden]"),
        ("key AIzaSyA1234567890abcdefghijk refused", "key [hidden] refused"),
        ("AKIAIOSFODNN7EXAMPLE may not", "[hidden] may not"),
        ('{"api_key": "0123456789abcdef"}', '{"api_key": "[hidden]"}'),
        ("x-api-key=0123456789abcdef", "x-api-key=[hidden]"),
        ("see https://user:pw@docs.host.com/path?sig=1#part now", "see https://docs.host.com/path now"),
        ("at http://internal.host/v1 now", "at [hidden] now"),
        ("at https://user:pw@vllm:8000/v1?a=b now", "at [hidden] now"),
        (
            "at https://10.0.0.7/v1, https://gpu.internal/v1 and https://api.openai.com/v1",
            "at [hidden] [hidden] and [hidden]",
        ),
        ("postgresql://waybill:pw@db/waybill", "[hidden]"),
        ("see https://platform.openai.com/account/limits.", "see https://platform.openai.com/account/limits."),
        ("two\nlines\tand\x00a null", "two lines and a null"),
        ("max_tokens is too large: 9000", "max_tokens is too large: 9000"),
    ],
)
def test_secrets_go_and_words_stay(text: str, clean: str) -> None:
    assert scrub(text, [SECRET]) == clean


def test_text_is_cut_only_after_its_secrets_are_out() -> None:
    assert len(scrub("word " * 1000, [])) <= 1000
    assert "k3y" not in scrub("x" * 995 + SECRET, [SECRET])


def test_short_values_are_no_secrets() -> None:
    assert scrub("none of these", ["none", ""]) == "none of these"


def test_longer_secret_goes_before_one_it_holds() -> None:
    assert scrub("abcdefgh-tail", ["abcdefgh", "abcdefgh-tail"]) == "[hidden]"
