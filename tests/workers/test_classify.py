"""What a failure means where no real provider can be made to show it: odd exceptions, headers, half-sent requests."""

from typing import Any

import httpx
import pytest

from shared.states import Outcome
from workers.classify import chain, classify, request_id, retry_after_s
from workers.provider import ProviderError
from workers.provider_http import Exchange

FAILED, UNKNOWN = Outcome.FAILED, Outcome.UNKNOWN


class LibraryError(Exception):
    """As litellm's classes look from outside."""

    def __init__(self, text: str, **fields: Any) -> None:
        super().__init__(text)
        vars(self).update(fields)


class ContextWindowExceededError(LibraryError): ...


def from_(cause: Exception, error: Exception | None = None) -> Exception:
    outer = error or LibraryError("litellm.InternalServerError: Connection error.", status_code=500)
    outer.__cause__ = cause
    return outer


def answered(status: int, body: Any = None, headers: dict[str, str] | None = None) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://provider.test/v1")
    response = httpx.Response(status, json=body or {}, headers=headers, request=request)
    return httpx.HTTPStatusError("text", request=request, response=response)


def outcome(error: Exception, exchange: Exchange | None = None) -> tuple[str, Outcome, str]:
    found = classify(error, exchange or Exchange(), ())
    return found.code, found.outcome, found.again


@pytest.mark.parametrize(
    ("error", "exchange", "expected"),
    [
        (ValueError("anything"), Exchange(), ("provider_error", UNKNOWN, "same")),
        (Exception("tenacity import failed"), Exchange(started=True), ("provider_error", FAILED, "same")),
        (ValueError("anything"), Exchange(started=True, sent=True), ("provider_error", UNKNOWN, "same")),
        (LibraryError("x", status_code=400), Exchange(), ("provider_bad_request", FAILED, "never")),
        (LibraryError("x", status_code=400), Exchange(started=True, sent=True), ("provider_error", UNKNOWN, "same")),
        (LibraryError("x", status_code=408), Exchange(), ("provider_error", UNKNOWN, "same")),
        (LibraryError("x", status_code=500), Exchange(), ("provider_error", UNKNOWN, "same")),
        (LibraryError("x", status_code=500), Exchange(is_ours=True), ("provider_bad_request", FAILED, "next")),
        (LibraryError("x", status_code=500), Exchange(is_ours=True, started=True), ("provider_error", FAILED, "same")),
        (from_(httpx.ReadTimeout("late")), Exchange(is_ours=True), ("provider_timeout", UNKNOWN, "same")),
        (ContextWindowExceededError("x", status_code=400), Exchange(), ("context_length_exceeded", FAILED, "next")),
        (from_(httpx.ConnectError("no")), Exchange(), ("provider_error", FAILED, "same")),
        (from_(httpx.ReadError("cut")), Exchange(), ("provider_error", UNKNOWN, "same")),
        (from_(httpx.ReadTimeout("late")), Exchange(), ("provider_timeout", UNKNOWN, "same")),
        (from_(httpx.ReadTimeout("late")), Exchange(status=200, sent=True), ("provider_timeout", UNKNOWN, "same")),
        (from_(answered(503)), Exchange(), ("provider_error", FAILED, "same")),
        (from_(answered(429)), Exchange(), ("provider_rate_limit", FAILED, "same")),
        (
            from_(answered(429, {"error": {"message": "m", "type": "insufficient_quota"}})),
            Exchange(),
            ("provider_auth", FAILED, "next"),
        ),
        (LibraryError("x", status_code=500), Exchange(status=529, sent=True), ("provider_error", FAILED, "same")),
    ],
)
def test_meaning(error: Exception, exchange: Exchange, expected: tuple[str, Outcome, str]) -> None:
    assert outcome(error, exchange) == expected


def test_what_the_wire_showed_counts_more_than_the_librarys_class() -> None:
    found = classify(LibraryError("x", status_code=500), Exchange(status=401, sent=True), ())

    assert (found.code, found.http_status) == ("provider_auth", 401)


def test_message_is_the_providers_then_the_librarys_without_its_names() -> None:
    body = {"error": {"message": "Model is sleeping."}}
    theirs = classify(from_(answered(400, body)), Exchange(), ())
    text = "litellm.UnsupportedParamsError: no parameter ['x'], for model=secret-name. To drop these, set this"
    ours = classify(LibraryError(text, status_code=400), Exchange(), ())
    hidden = classify(from_(httpx.ReadError("peer 10.0.0.7 cut")), Exchange(), ())

    assert theirs.message == "Model is sleeping."
    assert ours.message == "no parameter ['x']"
    assert hidden.message is None


def test_headers_are_found_where_the_library_hid_them() -> None:
    hidden = LibraryError("x", status_code=429, litellm_response_headers={"Retry-After": "9", "request-id": "r1"})
    found = classify(from_(answered(429), hidden), Exchange(), ())

    assert (found.retry_after_s, found.provider_request_id) == (9, "r1")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2), ("0.5", 0.5), ("-3", 0), ("99999", 3600), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("", None),
     ("soon", None), ("nan", None), ("inf", 3600)],
)  # fmt: skip
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": value}) == seconds


def test_request_id_that_holds_the_key_is_hidden() -> None:
    assert request_id({"x-request-id": "secret-key-1"}, ["secret-key-1"]) == "[hidden]"
    assert request_id({"date": "now"}, []) is None


def test_chain_ends_in_a_circle() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first

    assert chain(first) == [first, second]


def test_error_keeps_nothing_of_what_it_came_from() -> None:
    found = classify(from_(httpx.ReadError("key-in-text")), Exchange(), ())

    assert isinstance(found, ProviderError)
    assert "key-in-text" not in f"{found!r} {vars(found)}"
