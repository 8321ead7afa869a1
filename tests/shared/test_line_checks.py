"""What is told of the lines of a batch's input file."""

import gzip
from typing import Any

import orjson
import pytest

from shared.errors import BadRequest, Forbidden, Invalid, KeyModelDenied, Unavailable, UnknownModel
from shared.line_checks import Fault, Faulty, LineChecks, of_route
from shared.states import Endpoint
from shared.wire.gateway import ChatIn, EmbeddingIn

CHAT_URL = "/v1/chat/completions"
HELLO = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hello"}]}
GIVEN = {"custom_id": "request-1", "method": "POST", "url": CHAT_URL, "body": HELLO}


def checks(endpoint: Endpoint = Endpoint.CHAT, **given: Any) -> LineChecks:
    return LineChecks(endpoint, **{"longest": 1000, **given})


def line(**fields: Any) -> bytes:
    """A line in order, with these fields instead; ... leaves one out."""
    return orjson.dumps({name: value for name, value in {**GIVEN, **fields}.items() if value is not ...})


def body(**fields: Any) -> bytes:
    return line(body={name: value for name, value in {**HELLO, **fields}.items() if value is not ...})


def fault(raw: bytes | None, **given: Any) -> tuple[str, str, str | None]:
    """Code, message and parameter."""
    with pytest.raises(Faulty) as raised:
        checks(**given).line(0, raw)
    return raised.value.code, raised.value.message, raised.value.param


NO_JSON = [
    (None, "The line is longer than 1000 bytes"),
    (b"{", "The line is not valid JSON (character 1): each line must be one whole JSON object"),
    (b"custom_id,text", "The line is not valid JSON: each line must be one whole JSON object"),
    (b'{"a": "\xff"}', "The line is not UTF-8"),
    ("{}".encode("utf-16"), "The line is not UTF-8"),
    ("{}".encode("utf-16-le"), "The line is not UTF-8 text: it has NUL bytes"),
    (gzip.compress(b"{}", mtime=0), "The file is packed: send it unpacked"),
    (b"{}\r{}\r", "The line is not valid JSON: lines must end with a line feed"),
    (b'["custom_id"]', "The line is a JSON array: write one object per line"),
    (b'"custom_id"', "The line is not a JSON object"),
    (line(custom_id="\x00"), "The line cannot be taken: NUL characters are not allowed"),
    (b'{"a":' + b"[" * 70 + b"]" * 70 + b"}", "The line cannot be taken: nesting is over 64 levels"),
]


@pytest.mark.parametrize(("raw", "message"), NO_JSON)
def test_what_is_no_json_object(raw: bytes | None, message: str):
    assert fault(raw) == ("invalid_json_line", message, None)


WRONG = [
    (line(custom_id=...), "missing_required_field", "'custom_id' is a required property", "custom_id"),
    (line(method=None), "missing_required_field", "'method' is a required property", "method"),
    (line(url=...), "missing_required_field", "'url' is a required property", "url"),
    (line(body=...), "missing_required_field", "'body' is a required property", "body"),
    (body(model=...), "missing_required_field", "'body.model' is a required property", "body.model"),
    (body(messages=...), "missing_required_field", "'body.messages' is a required property", "body.messages"),
    (line(custom_id=7), "invalid_request", "custom_id must be a string of 1 to 512 characters", "custom_id"),
    (line(custom_id=""), "invalid_request", "custom_id must be a string of 1 to 512 characters", "custom_id"),
    (line(custom_id="x" * 513), "invalid_request", "custom_id must be a string of 1 to 512 characters", "custom_id"),
    (line(method="GET"), "invalid_method", "method must be 'POST'", "method"),
    (line(url="/v1/embeddings"), "invalid_url", f"url must be '{CHAT_URL}', the endpoint of this batch", "url"),
    (line(url=["x"]), "invalid_url", f"url must be '{CHAT_URL}', the endpoint of this batch", "url"),
    (line(body=[]), "invalid_request", "'body': Input should be an object", "body"),
    (body(stream=True), "stream_not_supported", "Streaming is not supported in batches", "body.stream"),
    (
        body(temperature=3),
        "invalid_request",
        "'body.temperature': Input should be less than or equal to 2",
        "body.temperature",
    ),
    (
        body(messages=[{"role": "king", "content": "Hello"}]),
        "invalid_request",
        "'body.messages[0].role': Input should be 'developer', 'system', 'user', 'assistant', 'tool' or 'function'",
        "body.messages[0].role",
    ),
]


@pytest.mark.parametrize(("raw", "code", "message", "param"), WRONG)
def test_what_is_wrong_with_a_line(raw: bytes, code: str, message: str, param: str):
    assert fault(raw) == (code, message, param)


def test_lines_in_order_are_what_they_ask_for():
    checked = checks()
    found = checked.line(0, body(stream=False, max_tokens=5, unknown="ignored"))
    other = checked.line(4, line(custom_id="x" * 512))

    assert (found.position, found.custom_id) == (0, "request-1")
    assert isinstance(found.body, ChatIn)
    assert found.body.provider_request() == {"messages": HELLO["messages"], "max_tokens": 5}
    assert (other.position, other.custom_id) == (4, "x" * 512)


def test_the_body_is_the_endpoints():
    embedding = line(url="/v1/embeddings", body={"model": "small", "input": "Hello"})
    assert isinstance(checks(Endpoint.EMBEDDING).line(0, embedding).body, EmbeddingIn)
    assert fault(embedding, endpoint=Endpoint.COMPLETION)[0] == "invalid_url"
    told = fault(line(url="/v1/completions"), endpoint=Endpoint.COMPLETION)
    assert told == ("missing_required_field", "'body.prompt' is a required property", "body.prompt")


def test_a_custom_id_is_used_once_even_by_lines_that_are_wrong():
    checked = checks()
    checked.line(0, line())
    checked.line(1, line(custom_id="Request-1"))
    with pytest.raises(Faulty) as again:
        checked.line(6, line(method="GET"))
    told = "custom_id 'request-1' is used on lines 1 and 7"
    assert again.value.at(6) == Fault("duplicate_custom_id", told, "custom_id", 7)
    with pytest.raises(Faulty, match="invalid_method"):
        checked.line(7, line(custom_id="other", method="GET"))
    with pytest.raises(Faulty, match="duplicate_custom_id"):
        checked.line(8, line(custom_id="other"))


def test_a_long_custom_id_is_shown_shortened():
    checked = checks()
    checked.line(0, line(custom_id="x" * 500))
    with pytest.raises(Faulty) as again:
        checked.line(1, line(custom_id="x" * 500))
    assert again.value.message == f"custom_id '{'x' * 64}…' is used on lines 1 and 2"


def test_more_lines_than_a_batch_may_have_are_not_looked_at():
    checked = checks(most=2)
    for n in range(2):
        checked.line(n, line(custom_id=str(n)))
    assert not checked.is_over
    with pytest.raises(Faulty) as raised:
        checked.line(9, b"{")
    assert checked.is_over
    assert raised.value.at(9) == Fault("too_many_lines", "A batch may have at most 2 lines", None, 10)


def test_a_model_that_cannot_be_used_is_a_fault_of_its_line():
    unknown = of_route(UnknownModel("The model 'gpt-9' does not exist or you do not have access to it"))
    assert unknown.at(8) == Fault("model_not_found", unknown.message, "body.model", 9)
    assert unknown.message == "The model 'gpt-9' does not exist or you do not have access to it"
    assert of_route(KeyModelDenied("No", param="fallbacks")).at(0) == Fault(
        "model_not_found", "No", "body.fallbacks", 1
    )
    assert of_route(Forbidden("Empty group")).code == "model_not_found"
    unpriced = of_route(Invalid.unpriced("body", "model"))
    assert (unpriced.code, unpriced.message, unpriced.param) == ("model_unpriced", "model has no price", "body.model")
    assert of_route(Unavailable("No provider credentials")).code == "model_unavailable"
    with pytest.raises(BadRequest):
        of_route(BadRequest("something else"))
