"""Server-sent events, however the network cuts them."""

import json
from typing import Any

import pytest

from workers.sse import MAX_EVENT_BYTES, Events, Garbled, InBandError

ONE, TWO = {"a": "ä\n"}, {"b": 2}
STREAM = f": hello\n\ndata: {json.dumps(ONE)}\n\nevent: chunk\nid: 7\ndata:{json.dumps(TWO)}\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_are_the_same_however_the_bytes_arrive(size: int, newline: str) -> None:
    raw = STREAM.replace("\n", newline).encode()
    events, chunks = Events(), []
    for at in range(0, len(raw), size):
        chunks += events.feed(raw[at : at + size])

    assert chunks == [ONE, TWO]
    assert events.done
    assert events.trouble is None


def test_data_over_several_lines_is_one_object_and_nothing_counts_after_the_end() -> None:
    events = Events()
    assert events.feed(b'data: {"a":\ndata: 1}\n\ndata: [DONE]\n\ndata: {"b": 2}\n\ndata: nonsense\n\n') == [{"a": 1}]
    assert events.trouble is None


def test_comments_are_no_chunks() -> None:
    assert Events().feed(b": ping\n\n: ping\n\n") == []


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"data: <html>\n\n", Garbled),
        (b"data: [1]\n\n", Garbled),
        (b'data: {"error": {"message": "m"}}\n\n', InBandError),
        (b'event: error\ndata: {"message": "m"}\n\n', InBandError),
        (b'data: {"object": "error", "message": "m"}\n\n', InBandError),
    ],
)
def test_trouble_keeps_what_came_before_and_ends_the_stream(raw: bytes, kind: type[Exception]) -> None:
    events = Events()
    chunks = events.feed(b'data: {"a": 1}\n\n' + raw + b'data: {"b": 2}\n\n')

    assert chunks == [{"a": 1}]
    assert isinstance(events.trouble, kind)


def test_error_that_is_null_is_none() -> None:
    events = Events()
    said: dict[str, Any] = {"error": None, "choices": []}
    assert events.feed(f"data: {json.dumps(said)}\n\n".encode()) == [said]
    assert events.trouble is None


def test_event_without_an_end_does_not_fill_the_memory() -> None:
    events, block = Events(), b"x" * (1024 * 1024)
    for _ in range(MAX_EVENT_BYTES // len(block)):
        events.feed(block)
    assert events.trouble is None
    events.feed(b"x")
    assert isinstance(events.trouble, Garbled)
