"""The body of an event: never over 20,000 bytes, still of its schema, with the answer where it was asked for."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from api.wire import event_examples
from api.wire.events import EVENTS
from shared import facts, ids, payload_forms
from shared.jobs import Job

NOW = datetime(2026, 1, 15, 12, 5, 23, tzinfo=UTC)
METADATA_10_KB = {"note": "n" * 9_980}
LIMIT = 20_000
MULTI_BYTE = "ä€😀"


def ended(**fields: Any) -> dict[str, Any]:
    """The event of a failed job with these fields."""
    job = Job(
        id=ids.new(), team_id="acme", organization_id="org", job_type="t", status="failed", created_at=NOW, **fields
    )
    body = facts.job_ended(job, NOW).body()
    assert len(body.encode()) <= LIMIT
    EVENTS["job.failed"].model_validate_json(body, strict=True)
    event: dict[str, Any] = orjson.loads(body)
    return event


def call_completed(**data: Any) -> str:
    event = event_examples.event("call.completed", id_=ids.new(), team_id="acme", at=NOW)
    return replace(event, data={**event.data, **data}).body()


def answered(text: str, **message: Any) -> str:
    """A stored answer of a chat model."""
    said = {"role": "assistant", "content": text, **message}
    return orjson.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}).decode()


def full(body: str, response: str | None) -> dict[str, Any]:
    """The `data` of the full form."""
    whole = payload_forms.full(body, response)
    assert len(whole.encode()) <= LIMIT
    EVENTS["call.completed"].model_validate_json(whole, strict=True)
    assert {**orjson.loads(whole), "data": None} == {**orjson.loads(body), "data": None}
    data: dict[str, Any] = orjson.loads(whole)["data"]
    return data


def test_what_fits_is_whole():
    data = ended(metadata=METADATA_10_KB, error_message="e" * 2_000)["data"]
    assert data["metadata"] == METADATA_10_KB
    assert data["error_message"] == "e" * 2_000
    assert "truncated" not in data


def test_metadata_goes_before_texts_are_cut():
    data = ended(metadata=METADATA_10_KB, error_message="\x01" * 2_000)["data"]
    assert (data["truncated"], data["metadata"], data["error_message"]) == (True, {}, "\x01" * 2_000)
    assert data["result_url"] == f"/api/jobs/{data['id']}"


def test_long_texts_lose_their_ends_at_last():
    data = ended(metadata=METADATA_10_KB, error_message="e" * 30_000)["data"]
    assert (data["truncated"], data["metadata"]) == (True, {})
    assert data["error_message"] == "e" * 2_000 + "…"
    assert len(data["result_url"]) > 40


@pytest.mark.parametrize("text", [MULTI_BYTE, "\x01", '"\\', "\x00😀"])
def test_text_of_any_alphabet_is_cut_between_characters(text: str):
    data = ended(user_id=text * 3_000, external_task_id=text * 3_000, error_message=text * 30_000)["data"]
    assert data["truncated"] is True
    for name in ("user_id", "external_task_id", "error_message"):
        assert data[name][-1] == "…"
        assert (text * 30_000).startswith(data[name][:-1])


def test_a_text_inside_an_object_is_cut_too():
    error = {"code": "provider_error", "message": "m" * 40_000, "retryable": False, "maybe_billed": False}
    event = event_examples.event("call.failed", id_=ids.new(), team_id="acme", at=NOW)
    body = replace(event, data={**event.data, "error": error}).body()
    EVENTS["call.failed"].model_validate_json(body, strict=True)
    data = orjson.loads(body)["data"]
    assert data["error"]["message"] == "m" * 2_000 + "…"
    assert data["metadata"] is None


def test_the_full_form_has_the_answer_as_the_call_shows_it():
    data = full(call_completed(), answered("Paris", tool_calls=None))
    assert data["response"] == {
        "role": "assistant", "content": "Paris", "tool_calls": None, "finish_reason": "stop",
    }  # fmt: skip
    assert "truncated" not in data


def test_a_completions_text_reads_as_a_message():
    stored = orjson.dumps({"choices": [{"index": 0, "text": "Paris", "finish_reason": "length"}]}).decode()
    response = full(call_completed(), stored)["response"]
    assert response == {"role": "assistant", "content": "Paris", "finish_reason": "length"}


def test_an_answer_that_does_not_fit_is_left_out_and_the_metadata_stays():
    data = full(call_completed(metadata=METADATA_10_KB), answered(MULTI_BYTE * 1_500))
    assert "response" not in data
    assert (data["truncated"], data["metadata"]) == (True, METADATA_10_KB)
    assert data["result_url"].startswith("/api/jobs/")


@pytest.mark.parametrize("stored", [answered("x" * 1_000_001), '{"data": [{"index": 0, "embedding": [0.1]}]}'])
def test_huge_answers_and_vectors_are_read_at_the_result_url(stored: str):
    data = full(call_completed(), stored)
    assert (data["response"], data["truncated"]) == (None, True)


def test_an_answer_that_is_not_kept_is_null():
    data = full(call_completed(), None)
    assert data["response"] is None
    assert "truncated" not in data


@pytest.mark.parametrize("type_", EVENTS)
def test_every_type_fits_however_long_its_texts_are(type_: str):
    event = event_examples.event(type_, id_=ids.new(), team_id="acme", at=NOW)
    long = {name: "\x01" * 9_000 if isinstance(value, str) else value for name, value in event.data.items()}
    body = replace(event, data=long).body()
    assert len(body.encode()) <= LIMIT
    assert orjson.loads(body)["data"]["truncated"] is True
