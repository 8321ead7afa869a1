"""The error table through the SDK: which class is raised, what it knows, and who tries again how often."""

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from tests.contract.sdk_chat import says
from tests.contract.sdk_world import QUESTION, Connect, Eager, World
from tests.demo import DemoProvider

ATTEMPTS = 3
"""How often one candidate is asked for one call (WAYBILL_ATTEMPTS_PER_CANDIDATE)."""
MORE_THAN_HALF_THE_BUDGET = 5000
"""Tokens, of the key with a budget of half a dollar."""
UNKNOWN_PART = [{"role": "user", "content": [{"type": "hologram"}]}]
INVALID, AUTH, MONEY, DENIED = "invalid_request_error", "authentication_error", "budget_exceeded", "permission_error"
RATE, CONNECTION, LATE, AWAY = "rate_limit_error", "api_connection_error", "timeout_error", "service_unavailable"


BAD, LIMIT, SERVER = openai.BadRequestError, openai.RateLimitError, openai.InternalServerError


@dataclass(frozen=True)
class Row:
    """A condition, and what the SDK shall make of it.

    step: what the provider does each time; body: more of the request; model: a name in the account's `more`.
    tries: requests of the SDK when it may try again once; asked: requests that reach the provider for each of them.
    """

    status: int
    raises: type[openai.APIStatusError]
    type: str
    code: str
    account: str = "faults"
    model: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    step: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    param: str | None = None
    provider: str | None = None
    waits: bool = False
    tries: int = 1
    asked: int = 0


def bad(code: str, **row: Any) -> Row:
    """A request that we refuse."""
    return Row(400, BAD, INVALID, code, **row)


def keyless(code: str, account: str, **row: Any) -> Row:
    """A key that opens nothing."""
    return Row(401, openai.AuthenticationError, AUTH, code, account, **row)


def unpaid(code: str, account: str, **row: Any) -> Row:
    """A row about money: never tried again."""
    return Row(402, openai.APIStatusError, MONEY, code, account, **row)


def denied(code: str, **row: Any) -> Row:
    """A key that does not open this."""
    return Row(403, openai.PermissionDeniedError, DENIED, code, **row)


def failing(
    status: int, step: dict[str, Any], raises: type[openai.APIStatusError], type_: str, code: str, **row: Any
) -> Row:
    """A provider that answers every request with this step; what is not the request's fault is tried again."""
    tries = 1 if status == 400 else 2
    step = {"fault": "status", **step}
    return Row(status, raises, type_, code, step=step, provider="openai", **{"asked": 1, "tries": tries, **row})


def refused(code: str) -> Row:
    """A provider that refuses the request with this code."""
    error = {"message": "no", "type": INVALID, "param": None, "code": code}
    return failing(400, {"status": 400, "body": {"error": error}}, BAD, INVALID, code)


ROWS = {
    "no messages": bad("400", body={"messages": []}, param="messages"),
    "a wrong type": bad("400", body={"temperature": "hot"}, param="temperature"),
    "a part of no known kind": bad("400", body={"messages": UNKNOWN_PART}, param="messages[0].content"),
    "no price": bad("model_unpriced", model="unpriced", param="model"),
    "refused by the provider": failing(400, {"status": 400}, BAD, INVALID, "provider_bad_request"),
    "too long": refused("context_length_exceeded"),
    "against the rules": refused("content_policy_violation"),
    "unknown key": keyless("401", "main", options={"api_key": "sk-" + "0" * 43}),
    "expired key": keyless("expired_key", "expired"),
    "blocked key": keyless("key_blocked", "blocked"),
    "credits used up": unpaid("insufficient_credits", "broke"),
    "budget used up": unpaid("budget_exceeded", "spent"),
    "suspended team": denied("403", account="suspended"),
    "route not allowed": denied("403", account="elsewhere"),
    "another team's model": denied("team_model_access_denied", model="foreign", param="model"),
    "a model that the key may not use": denied("key_model_access_denied", account="choosy", param="model"),
    "unknown model": Row(404, openai.NotFoundError, INVALID, "model_not_found", model="unknown", param="model"),
    "rate limit": Row(429, LIMIT, RATE, "429", account="limited", tries=2, waits=True),
    "paused team": Row(429, LIMIT, RATE, "429", account="paused", tries=2, waits=True),
    "the provider's rate limit": failing(429, {"status": 429}, LIMIT, RATE, "429", asked=ATTEMPTS, waits=True),
    "provider error": failing(502, {"status": 500}, SERVER, CONNECTION, "provider_error", asked=ATTEMPTS),
    "provider error before a stream": failing(
        502, {"status": 500}, SERVER, CONNECTION, "provider_error", asked=ATTEMPTS, body={"stream": True}
    ),
    "no credits for a stream": unpaid("insufficient_credits", "broke", body={"stream": True}),
    "a reply that is none": failing(502, {"fault": "garbage"}, SERVER, CONNECTION, "provider_error", asked=ATTEMPTS),
    "the provider refuses us": failing(502, {"status": 401}, SERVER, CONNECTION, "provider_auth"),
    "no provider credential": Row(503, SERVER, AWAY, "503", model="keyless", tries=2, waits=True),
    "too late": failing(504, {"fault": "hang"}, SERVER, LATE, "deadline_exceeded", body={"timeout": 0.4}),
}


@pytest.mark.parametrize("name", ROWS)
async def test_every_error_is_raised_known_and_repeated_only_where_it_helps(
    connect: Connect, provider: DemoProvider, name: str
):
    row = ROWS[name]
    client = connect(row.account, max_retries=1, **row.options)
    text = f"{name} {client.account.model}"
    if row.step:
        await provider.script(row.step, match=text, repeat=True)
    model = client.account.more[row.model] if row.model else client.account.alias

    with pytest.raises(row.raises) as raised:
        await client.post(
            "/chat/completions", body={"model": model, "messages": says(text), **row.body}, cast_to=dict[str, Any]
        )

    error = raised.value
    assert type(error) is row.raises
    assert (error.status_code, error.type, str(error.code), error.param) == (row.status, row.type, row.code, row.param)
    assert isinstance(error.body, dict)
    assert error.body["provider"] == row.provider
    assert error.body["message"]
    assert error.request_id == error.response.headers["x-request-id"] == error.response.headers["x-olla-request-id"]
    assert error.response.headers["x-olla-endpoint"] == "litellm-gateway"
    assert len(client.traffic.sent) == row.tries
    assert await provider.count(text) == row.tries * row.asked
    assert len(client.traffic.call_ids) == (row.tries if row.asked else 0), "a call that was accepted says its id"
    if row.waits:
        assert 1 <= int(error.response.headers["retry-after"]) <= 120
    if row.status == 402:
        assert error.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", ["/nothing/here", "/chat/nothing"])
async def test_an_unknown_path_is_not_found(client: Eager, path: str):
    with pytest.raises(openai.NotFoundError) as raised:
        await client.post(path, body={}, cast_to=dict[str, Any])

    assert (raised.value.type, str(raised.value.code)) == ("not_found_error", "404")


async def test_a_wrong_method_is_said_in_the_envelope(client: Eager):
    with pytest.raises(openai.APIStatusError) as raised:
        await client.get("/chat/completions", cast_to=dict[str, Any])

    assert (raised.value.status_code, raised.value.type, str(raised.value.code)) == (405, INVALID, "405")


async def test_a_request_without_a_key_is_refused(client: Eager):
    with pytest.raises(openai.AuthenticationError) as raised:
        await client.chat.completions.create(
            model=client.account.alias, messages=says(QUESTION), extra_headers={"Authorization": openai.Omit()}
        )

    assert str(raised.value.code) == "401"


async def test_a_budget_full_of_calls_in_flight_says_when_to_come_again(connect: Connect, provider: DemoProvider):
    client, other = connect("tight"), connect("tight", max_retries=1)
    text = f"in flight {client.account.model}"

    async def ask(with_client: Eager) -> Any:
        return await with_client.chat.completions.create(
            model=client.account.alias, messages=says(text), max_tokens=MORE_THAN_HALF_THE_BUDGET
        )

    await provider.hold(text)
    first = asyncio.create_task(ask(client))
    await provider.asked(text)
    with pytest.raises(openai.APIStatusError) as raised:
        await ask(other)
    await provider.release()

    assert (raised.value.status_code, raised.value.code) == (402, "budget_in_flight")
    assert int(raised.value.response.headers["retry-after"]) >= 1
    assert len(other.traffic.sent) == 1, "the SDK does not pay for another try"
    assert (await first).choices[0].message.content


async def test_a_repeated_request_is_answered_once_and_kept_apart_from_another(
    connect: Connect, provider: DemoProvider
):
    client = connect(max_retries=1)
    text = f"twice {client.account.model}"
    once = {"Idempotency-Key": str(uuid.uuid4())}

    async def ask(said: str) -> Any:
        return await client.chat.completions.create(model=client.account.alias, messages=says(said), extra_headers=once)

    await provider.hold(text)
    first = asyncio.create_task(ask(text))
    await provider.asked(text)
    with pytest.raises(openai.ConflictError) as in_flight:
        await ask(text)
    await provider.release()
    answer = await first
    again = await ask(text)
    with pytest.raises(openai.UnprocessableEntityError) as reused:
        await ask("something else")

    assert (in_flight.value.type, str(in_flight.value.code)) == ("conflict", "409")
    assert (reused.value.type, reused.value.code) == (INVALID, "idempotency_key_reused")
    assert again.id == answer.id
    assert await provider.count(text) == 1
    assert len(client.traffic.sent) == 4, "neither is tried again"


async def test_a_call_cancelled_meanwhile_is_a_conflict(connect: Connect, provider: DemoProvider, world: World):
    client = connect(max_retries=1)
    text = f"cancelled {client.account.model}"
    job = await client.post(
        f"{world.api_url}/api/jobs/create",
        body={"team_id": client.account.more["team_id"], "job_type": "test"},
        cast_to=dict[str, Any],
    )
    job_id = job["job_id"]
    await provider.hold(text)
    waiting = asyncio.create_task(
        client.chat.completions.create(
            model=client.account.alias, messages=says(text), extra_headers={"X-Job-Id": job_id}
        )
    )
    await provider.asked(text)
    page = await client.get(f"{world.api_url}/api/jobs/{job_id}/calls", cast_to=dict[str, Any])
    call_id = page["calls"][0]["call_id"]
    await client.post(f"{world.api_url}/api/jobs/{job_id}/calls/{call_id}/cancel", cast_to=dict[str, Any])

    with pytest.raises(openai.ConflictError) as raised:
        await waiting
    await provider.release()

    assert (raised.value.type, raised.value.code) == ("conflict", "cancelled")
    assert raised.value.response.headers["x-call-id"] == call_id
    await client.post(
        f"{world.api_url}/api/jobs/{job_id}/complete", body={"status": "completed"}, cast_to=dict[str, Any]
    )
    with pytest.raises(openai.ConflictError) as final:
        await client.chat.completions.create(
            model=client.account.alias, messages=says(text), extra_headers={"X-Job-Id": job_id}
        )
    assert (final.value.type, str(final.value.code)) == ("conflict", "409")
