"""The bytes around a chunk, in both dialects."""

import pytest

from api.frames import JOBS, OPENAI, OPENAI_WITH_USAGE, Dialect
from shared.chunks import Chunks, End
from shared.errors import CallFailed, Unavailable

HEAD = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"a \\"choices\\": b",'
SAID = HEAD + b'"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}'
FINISH = HEAD + b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE = b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'
TWO = Chunks(attempt=1, last=8, texts=[SAID, SAID])
END = End(attempt=1, first=9, state="completed", finishes=[FINISH, FINISH], usage=USAGE, cost_usd=b"0.000123")
BROKEN = CallFailed(502, "It broke", headers={}, failure="stream_interrupted", provider="openai")


def test_the_job_api_numbers_its_frames_and_tells_usage_in_the_last_finish_chunk():
    assert JOBS.chunks(TWO) == b"id: 7\ndata: %b\n\nid: 8\ndata: %b\n\n" % (SAID, SAID)
    last = FINISH[:-1] + b',"usage":%b}' % USAGE
    assert JOBS.end(END) == b"id: 9\ndata: %b\n\nid: 10\ndata: %b\n\ndata: [DONE]\n\n" % (FINISH, last)


def test_openai_has_no_numbers_and_tells_no_usage_unasked():
    assert OPENAI.chunks(TWO) == b"data: %b\n\n" % SAID * 2
    assert OPENAI.end(END) == b"data: %b\n\n" % FINISH * 2 + b"data: [DONE]\n\n"


def test_asked_for_usage_openai_has_null_in_every_chunk_and_one_more_at_the_end():
    assert OPENAI_WITH_USAGE.chunks(TWO) == b'data: %b,"usage":null}\n\n' % SAID[:-1] * 2
    usage = USAGE[:-1] + b',"cost":0.000123}'
    assert OPENAI_WITH_USAGE.end(END) == (
        b'data: %b,"usage":null}\n\n' % FINISH[:-1] * 2
        + b'data: %b"choices":[],"usage":%b}\n\n' % (HEAD, usage)
        + b"data: [DONE]\n\n"
    )


def test_an_error_is_said_in_the_dialects_words():
    assert JOBS.error(BROKEN) == (
        b'data: {"error":{"message":"It broke","type":"api_connection_error","code":"stream_interrupted"}}\n\n'
        b"data: [DONE]\n\n"
    )
    assert OPENAI.error(BROKEN) == (
        b'data: {"error":{"message":"It broke","type":"api_connection_error","param":null,'
        b'"code":"stream_interrupted","provider":"openai"}}\n\ndata: [DONE]\n\n'
    )
    assert b'"type":"service_unavailable","code":503}' in JOBS.error(Unavailable("Closing"))


@pytest.mark.parametrize(("dialect", "code"), [(JOBS, b'"provider_rate_limit"'), (OPENAI, b"429")])
def test_a_providers_rate_limit_is_a_word_to_jobs_and_a_number_to_openai(dialect: Dialect, code: bytes):
    limited = CallFailed(429, "Slow down", headers={}, failure="provider_rate_limit")
    assert b'"code":%b' % code in dialect.error(limited)


def test_a_client_that_has_all_chunks_is_only_told_that_it_is_done():
    nothing_left = End(attempt=1, first=11, state="completed", finishes=[], usage=USAGE)
    for dialect in (JOBS, OPENAI, OPENAI_WITH_USAGE):
        assert dialect.end(nothing_left) == b"data: [DONE]\n\n"
