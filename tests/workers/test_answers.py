"""What a provider's report of its tokens is worth: all of it, with an estimate where it says nothing."""

from dataclasses import replace
from typing import Any

import pytest

from shared.attempt_reports import Usage
from tests.workers.litellm_rig import a_call
from workers import embeddings
from workers.answers import ChatAssembly, Tokens

EMBEDDING = replace(a_call(None), endpoint="embedding", request={"input": "hello"}, estimated_prompt_tokens=50)
CHAT = replace(a_call(None), estimated_prompt_tokens=50)
SAID = "twelve bytes"
ESTIMATED = 4


def said(*reports: Any) -> Usage:
    """Of a chat answer in as many chunks, each with such a report."""
    assembly = ChatAssembly(1)
    for report in reports:
        assembly.take({"choices": [], "usage": report})
    assembly.take({"choices": [{"index": 0, "message": {"content": SAID}, "finish_reason": "stop"}]})
    return assembly.answer(CHAT, {}).usage


@pytest.mark.parametrize(("report", "prompt", "completion", "source"), [
    ({"prompt_tokens": 12, "completion_tokens": 7}, 12, 7, "provider"),
    ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 9}, 0, 0, "provider"),
    ({"prompt_tokens": 12, "total_tokens": 19}, 12, 7, "provider"),
    ({"completion_tokens": 7, "total_tokens": 19}, 12, 7, "provider"),
    ({"prompt_tokens": 12}, 12, ESTIMATED, "estimated"),
    ({"completion_tokens": 7}, 50, 7, "estimated"),
    ({"total_tokens": 19}, 15, ESTIMATED, "estimated"),
    ({"total_tokens": 3}, 0, ESTIMATED, "estimated"),
    ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, 50, ESTIMATED, "estimated"),
    ({"prompt_tokens": "many"}, 50, ESTIMATED, "estimated"),
    ({"prompt_tokens": -5, "completion_tokens": float("-inf")}, 0, 0, "provider"),
    (None, 50, ESTIMATED, "estimated"),
])  # fmt: skip
def test_what_is_missing_is_never_free(report: Any, prompt: int, completion: int, source: str):
    assert said(report) == Usage(prompt_tokens=prompt, completion_tokens=completion, source=source)


def test_reports_while_it_speaks_are_one_and_nulls_take_nothing_back():
    usage = said({"prompt_tokens": 12, "completion_tokens": 3}, {"prompt_tokens": None, "completion_tokens": 8})
    assert usage == Usage(prompt_tokens=12, completion_tokens=8, source="provider")


@pytest.mark.parametrize(("report", "prompt", "source"), [
    ({"total_tokens": 10}, 10, "provider"),
    ({"prompt_tokens": 9, "total_tokens": 9}, 9, "provider"),
    ({"prompt_tokens": 0}, 0, "provider"),
    ({}, 50, "estimated"),
    (None, 50, "estimated"),
])  # fmt: skip
def test_an_embedding_has_a_prompt_and_no_answer(report: Any, prompt: int, source: str):
    body = {"data": [{"index": 0, "embedding": [0.1]}], "usage": report}
    assert embeddings.read(body, EMBEDDING, {}).usage == Usage(prompt_tokens=prompt, source=source)


def test_the_largest_report_fits_its_column():
    tokens = Tokens()
    tokens.add({"prompt_tokens": 2**40, "completion_tokens": 2**40})
    usage = tokens.usage(CHAT, 0)
    assert usage.prompt_tokens + usage.completion_tokens <= 2**31 - 1
