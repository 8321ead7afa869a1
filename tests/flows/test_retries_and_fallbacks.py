"""What becomes of a call whose provider fails: tried again, sent elsewhere, or ended with the code of its failure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.demo import Step
from tests.invariants import verify
from tests.stack import PRICES, Stack
from tests.team import Team

SERVER_ERROR: Step = {"fault": "status", "status": 500}
REFUSED_KEY: Step = {"fault": "status", "status": 401}


def refusal(status: int, message: str, code: str | None = None) -> Step:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return {"fault": "status", "status": status, "body": {"error": error}}


def limited(retry_after_s: int) -> Step:
    return {"fault": "status", "status": 429, "headers": {"Retry-After": str(retry_after_s)}}


async def test_no_request_comes_before_the_providers_retry_after(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.script(limited(1), match=team.model)

    result = await team.result(await team.submit("What is the capital of France?"))

    refused, answered = await stack.provider.requests(team.model)
    assert answered["arrived_at"] - refused["finished_at"] >= 1
    assert result["response"]["content"] == "Paris"
    assert outcomes(result) == [("failed", 429, "provider_rate_limit"), ("succeeded", None, None)]
    await verify(stack)


async def test_a_retry_after_beyond_the_deadline_ends_the_call_at_once(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.script(limited(600), match=team.model, repeat=True)
    job = (await team.job())["job_id"]

    answer = await team.ask(job, "Hello", deadline_s=60)

    assert (answer.status_code, answer.json()) == (429, {"detail": "LLM call failed: provider rate limit"})
    assert answer.headers["Retry-After"] == "600"
    assert await stack.provider.count(team.model) == 1


async def test_a_call_that_fails_twice_and_then_is_answered_is_charged_once(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.script(SERVER_ERROR, SERVER_ERROR, match=team.model)

    result = await team.result(await team.submit("What is the capital of France?"))

    assert result["response"]["content"] == "Paris"
    assert [outcome for outcome, _, _ in outcomes(result)] == ["failed", "failed", "succeeded"]
    assert result["attempt_count"] == await stack.provider.count(team.model) == 3
    assert await team.charges() == [1]
    await verify(stack)


async def test_a_fallback_answers_once_the_candidates_attempts_are_used_up(stack: Stack) -> None:
    team = await stack.team(fallbacks=1)
    first, second = team.models
    await stack.provider.script(SERVER_ERROR, match=first, repeat=True)

    result = await team.result(await team.submit("What is the capital of France?"))

    assert await asked_models(stack, team) == [first, first, first, second]
    assert (result["status"], result["model"], result["response"]["content"]) == ("completed", team.alias, "Paris")
    assert result["resolved_model"] == f"openai/{second}"
    assert await team.charges() == [1]
    await verify(stack)


async def test_a_call_is_tried_six_times_at_most_over_all_its_candidates(stack: Stack) -> None:
    team = await stack.team(fallbacks=2)
    await stack.provider.script(SERVER_ERROR, match=team.team_id, repeat=True)

    result = await team.result(await team.submit("Hello"))

    first, second, third = team.models
    assert await asked_models(stack, team) == [first] * 3 + [second] * 2 + [third]
    assert result["error"] == {
        "code": "provider_error",
        "message": "LLM call failed: provider error",
        "http_status": 502,
        "retryable": True,
        "maybe_billed": False,
    }
    assert await team.charges() == []
    await verify(stack)


async def test_a_bad_request_is_not_tried_again_nor_sent_elsewhere(stack: Stack) -> None:
    team = await stack.team(fallbacks=1)
    await stack.provider.script(refusal(400, "temperature is odd"), match=team.model, repeat=True)

    result = await team.result(await team.submit("Hello"))

    assert result["error"]["code"] == "provider_bad_request"
    assert await asked_models(stack, team) == [team.model]
    await verify(stack)


@pytest.mark.parametrize(
    "step",
    [
        REFUSED_KEY,
        refusal(403, "not allowed"),
        refusal(429, "no money left", "insufficient_quota"),
        refusal(404, "no such model"),
        refusal(400, "too long", "context_length_exceeded"),
    ],
    ids=["401", "403", "quota", "404", "context"],
)
async def test_what_another_candidate_may_take_goes_to_it_at_once(stack: Stack, step: Step) -> None:
    team = await stack.team(fallbacks=1)
    await stack.provider.script(step, match=team.model, repeat=True)

    result = await team.result(await team.submit("What is the capital of France?"))

    assert result["response"]["content"] == "Paris"
    assert await asked_models(stack, team) == list(team.models)


async def test_every_attempt_is_on_record_for_an_admin(stack: Stack) -> None:
    prices = {"pricing_input": 30.0, "pricing_output": 60.0, "pricing_cached_input": 15.0}
    team = await stack.team(prices=prices, cost_markup_percentage=50)
    used = {"prompt_tokens": 100, "completion_tokens": 50, "cached_tokens": 40, "reasoning_tokens": 10}
    await stack.provider.script(SERVER_ERROR, {"fault": "usage", **used}, match=team.model)

    result = await team.result(await team.submit("Hello"))

    failed, kept = result["attempts"]
    who = {"provider": "openai", "model": f"openai/{team.model}", "price_source": "alias"}
    priced = {"model_pricing_input": 30.0, "model_pricing_output": 60.0}
    assert part(failed, {**who, **priced, "attempt": 1, "outcome": "failed", "http_status": 500}) == {}
    assert part(failed, {"error_code": "provider_error", "usage_source": "none", "maybe_billed": False}) == {}
    assert part(failed, {"provider_cost_usd": 0, "client_cost_usd": 0}) == {}
    assert part(kept, {**who, **priced, **used, "attempt": 2, "outcome": "succeeded", "error_code": None}) == {}
    # 60 tokens at 30 USD per million, 40 cached at 15, 50 completed at 60; the client pays half as much again.
    assert part(kept, {"usage_source": "provider", "provider_cost_usd": 0.0054, "client_cost_usd": 0.0081}) == {}
    assert failed["provider_request_id"] != kept["provider_request_id"]
    assert all(attempt["provider_request_id"].startswith("req_") for attempt in (failed, kept))
    assert (result["cost_usd"], result["provider_cost_usd"]) == (0.0081, 0.0054)
    await verify(stack)


async def test_a_team_does_not_see_the_attempts_nor_what_they_cost_us(stack: Stack) -> None:
    team = await stack.team()
    call = await team.submit("Hello")
    await team.ended(call.job_id)

    shown = (await team.client.get(call.path)).json()

    assert not {"attempts", "provider", "resolved_model", "provider_cost_usd"} & set(shown)
    assert team.model not in str(shown)


async def test_an_answer_whose_usage_is_missing_is_paid_by_estimate_and_says_so(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.script({"fault": "no_usage"}, match=team.model)

    result = await team.result(await team.submit("Hello"))

    assert (result["status"], result["usage_source"]) == ("completed", "estimated")
    assert result["cost_usd"] > 0
    await verify(stack)


@dataclass(frozen=True)
class Failure:
    """What the provider does, and what a client that waits is told."""

    code: str
    status: int
    detail: str
    steps: Sequence[Step]
    asked: int
    maybe_billed: bool = False


FAILURES = [
    Failure(
        "provider_bad_request", 400, "LLM call failed: temperature is odd", [refusal(400, "temperature is odd")], 1
    ),
    Failure(
        "context_length_exceeded",
        400,
        "LLM call failed: too long",
        [refusal(400, "too long", "context_length_exceeded")],
        1,
    ),
    Failure(
        "content_policy_violation",
        400,
        "LLM call failed: not nice",
        [refusal(400, "not nice", "content_policy_violation")],
        1,
    ),
    Failure("provider_rate_limit", 429, "LLM call failed: provider rate limit", [limited(0)], 3),
    Failure("provider_auth", 502, "LLM call failed: provider error", [REFUSED_KEY], 1),
    Failure("provider_error", 502, "LLM call failed: provider error", [SERVER_ERROR], 3),
    Failure("provider_error", 502, "LLM call failed: provider error", [{"fault": "reset"}], 3, maybe_billed=True),
    Failure("provider_error", 502, "LLM call failed: provider error", [{"fault": "garbage"}], 3, maybe_billed=True),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure.code}-{failure.steps[0]['fault']}")
async def test_a_client_that_waits_is_told_how_the_call_failed(stack: Stack, failure: Failure) -> None:
    team = await stack.team()
    await stack.provider.script(*failure.steps, match=team.model, repeat=True)
    job = (await team.job())["job_id"]

    answer = await team.ask(job, "Hello")

    assert (answer.status_code, answer.json()) == (failure.status, {"detail": failure.detail})
    assert ("Retry-After" in answer.headers) == (failure.status == 429)
    error = (await team.client.get(answer.headers["Location"])).json()["error"]
    assert (error["code"], error["http_status"], error["message"]) == (failure.code, failure.status, failure.detail)
    assert error["maybe_billed"] is failure.maybe_billed
    assert await stack.provider.count(team.model) == failure.asked
    assert (await team.complete(job)).json()["credits_remaining"] == 1000
    await verify(stack)


async def test_a_provider_that_does_not_answer_is_a_timeout_and_maybe_billed(stack: Stack) -> None:
    team = await stack.team(prices={**PRICES, "on_unknown": "fail"})
    await stack.provider.script({"fault": "hang"}, match=team.model, repeat=True)
    job = (await team.job())["job_id"]

    answer = await team.ask(job, "Hello")

    assert (answer.status_code, answer.json()) == (504, {"detail": "LLM call failed: provider timeout"})
    (call,) = (await stack.admin.get(f"/api/jobs/{job}/calls")).json()["calls"]
    found = (await stack.admin.get(f"/api/jobs/{job}/calls/{call['call_id']}")).json()
    assert (found["error"]["code"], found["error"]["maybe_billed"]) == ("provider_timeout", True)
    assert [(a["outcome"], a["usage_source"]) for a in found["attempts"]] == [("unknown", "estimated")]
    assert found["provider_cost_usd"] > found["cost_usd"] == 0
    await stack.provider.asked(team.model, outcome="disconnected")
    assert (await team.complete(job)).json()["credits_remaining"] == 1000
    await verify(stack)


async def asked_models(stack: Stack, team: Team) -> list[str]:
    return [request["model"] for request in await stack.provider.requests(team.team_id)]


def outcomes(result: dict[str, Any]) -> list[tuple[str, int | None, str | None]]:
    return [(a["outcome"], a["http_status"], a["error_code"]) for a in result["attempts"]]


def part(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What of `wanted` is otherwise: name and what was found instead."""
    return {name: found[name] for name, value in wanted.items() if found[name] != value}
