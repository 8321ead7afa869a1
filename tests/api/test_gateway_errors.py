"""What goes wrong with a call of the gateway, in OpenAI's envelope: status, type, param, code, and who is to blame."""

import asyncio
from typing import Any

from shared import budgets
from shared.states import Outcome
from tests.api.admin import unique
from tests.api.gateway import COMPLETIONS, EMBEDDINGS, ask, problem, said
from tests.scene import COST_NANOUSD, HELLO, Scene, Team, agrees, refused

INVALID = "invalid_request_error"
REMOTE = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
FETCHED = [{"type": "file", "file": {"file_data": "https://example.com/a.pdf"}}]
FOREIGN = [{"type": "file", "file": {"file_id": "file-1"}}]
DEEPER = [{"type": "text", "text": "Read", "source": [{"type": "file", "file_id": "file-1"}]}]
DOCUMENT = [{"type": "document", "source": {"type": "file", "file_id": "file-1"}}]

WRONG = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": REMOTE}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": FETCHED}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": FOREIGN}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": DEEPER}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": DOCUMENT}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "zzz"}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"model": 5}, "model"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": True}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"logit_bias": {"50256": 101}}, "logit_bias"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"stop": 5}, "stop"),
    ({"seed": 2**63}, "seed"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "mcp", "server_url": "litellm_proxy"}]}, "tools"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ({"user": 5}, "user"),
    ({"user": "x" * 1001}, "user"),
    ({"store": "no"}, "store"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": "x" * 11_000}}, "metadata"),
    ({"tags": "a"}, "tags"),
    ({"fallbacks": [{"a": "b"}]}, "fallbacks[0]"),
    ({"num_retries": 6}, "num_retries"),
    ({"timeout": 0}, "timeout"),
]
WRONG_COMPLETIONS = [
    ({}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": "a", "logprobs": 6}, "logprobs"),
    ({"prompt": "a", "n": 2, "best_of": 1}, "best_of"),
]
WRONG_EMBEDDINGS = [
    ({}, "input"),
    ({"input": ""}, "input"),
    ({"input": ["a", ""]}, "input"),
    ({"input": []}, "input"),
    ({"input": [[1], []]}, "input"),
    ({"input": [1, "a"]}, "input"),
    ({"input": ["a"] * 2049}, "input"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": ["a"] * 2048, "dimensions": 1537}, "dimensions"),
]
FAILED = [
    ("provider_bad_request", 400, INVALID, "provider_bad_request"),
    ("context_length_exceeded", 400, INVALID, "context_length_exceeded"),
    ("content_policy_violation", 400, INVALID, "content_policy_violation"),
    ("provider_rate_limit", 429, "rate_limit_error", 429),
    ("internal_error", 500, "internal_server_error", "internal_error"),
    ("provider_error", 502, "api_connection_error", "provider_error"),
    ("provider_auth", 502, "api_connection_error", "provider_auth"),
    ("provider_timeout", 504, "timeout_error", "provider_timeout"),
]


async def test_what_is_wrong_with_a_request_is_named(scene: Scene, team: Team):
    for path, table in ((None, WRONG), (COMPLETIONS, WRONG_COMPLETIONS), (EMBEDDINGS, WRONG_EMBEDDINGS)):
        for fields, param in table:
            found = await ask(team, *([path] if path else []), **fields)
            assert problem(found) == (400, INVALID, param, 400), (path, fields, found.text)
    assert not scene.provider.asked


async def test_a_failed_call_has_the_status_and_the_words_of_its_failure(scene: Scene, team: Team):
    for word, status, type_, code in FAILED:
        wrong = refused(word, again="never", message="Bad thing", retry_after_s=9, outcome=Outcome.FAILED)
        scene.provider.steps = [wrong]
        found = await ask(team)
        assert problem(found) == (status, type_, None, code)
        assert found.json()["error"]["provider"] == (None if word == "internal_error" else "openai")
        assert ("Bad thing" in said(found)) == (status == 400)
        assert found.headers.get("retry-after") == ("9" if status == 429 else None)
        assert {"x-job-id", "x-call-id", "x-litellm-call-id"} <= set(found.headers)
        assert "x-litellm-response-cost" not in found.headers
    assert await team.deductions() == []
    await agrees(scene, team)


async def test_models_that_cannot_be_used(scene: Scene, team: Team):
    unknown = await ask(team, model="gpt-9")
    assert problem(unknown) == (404, INVALID, "model", "model_not_found")
    assert said(unknown) == "The model 'gpt-9' does not exist or you do not have access to it"
    assert unknown.headers["x-olla-model"] == "gpt-9"
    assert unknown.headers["x-olla-routing-reason"] == "model_not_found"

    foreign = (await scene.team()).models[0]
    denied = await ask(team, model=foreign)
    assert problem(denied) == (403, "permission_error", "model", "team_model_access_denied")
    assert said(denied) == f"Team '{team.id}' does not have access to model alias '{foreign}'"

    free = await scene.team(alias={"litellm_model": unique("openai/x"), "pricing_input": None, "pricing_output": None})
    unpriced = await ask(free)
    assert (problem(unpriced), said(unpriced)) == ((400, INVALID, "model", "model_unpriced"), "model has no price")

    keyless = await scene.team(alias={"litellm_model": "anthropic/claude-x", "api_key": None})
    unusable = await ask(keyless)
    assert problem(unusable) == (503, "service_unavailable", None, 503)
    assert said(unusable).startswith("No provider credentials configured for anthropic.")
    assert "retry-after" in unusable.headers
    assert not scene.provider.asked


async def test_money_is_never_a_reason_to_try_again(scene: Scene):
    poor = await scene.team(credits=0)
    used_up = await ask(poor)
    assert problem(used_up) == (402, "budget_exceeded", None, "insufficient_credits")
    assert (said(used_up), used_up.headers["x-should-retry"]) == ("Insufficient credits", "false")
    assert (await scene.row("select count(*) as n from jobs where team_id = :id", id=poor.id)).n == 0

    team = await scene.team()
    key_id = (await scene.row("select id from virtual_keys where team_id = :id", id=team.id)).id
    small = {"max_tokens": 250, "messages": [{"role": "user", "content": "x" * 600}]}
    async with scene.rt.db.transaction() as tx:
        await budgets.set_budget(tx, key_id=key_id, max_nanousd=2 * COST_NANOUSD)
    scene.app.state.authenticator.forget()
    scene.provider.held.clear()
    first = asyncio.create_task(ask(team, **small))
    await scene.provider.until_asked(1)
    full = await ask(team, **small)
    assert problem(full) == (402, "budget_exceeded", None, "budget_in_flight")
    assert (full.headers["x-should-retry"], "retry-after" in full.headers) == ("false", True)
    scene.provider.held.set()
    paid = await first
    assert (paid.status_code, paid.headers["x-litellm-key-max-budget"]) == (200, f"{2 * COST_NANOUSD / 10**9:g}")
    over = await ask(team, max_tokens=100_000)
    assert problem(over) == (402, "budget_exceeded", None, "budget_exceeded")
    assert (said(over), over.headers["x-should-retry"]) == ("Budget exceeded for this API key", "false")
    assert "retry-after" not in over.headers
    await agrees(scene, team)


async def test_limits_say_when_to_come_again(scene: Scene):
    team = await scene.team(rpm_limit=2, tpm_limit=100_000)
    first = await ask(team, max_tokens=10)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-limit-tokens"] == "100000"
    assert problem(await ask(team, model="nothing"))[0] == 404, "what is refused takes nothing"
    await ask(team, max_tokens=10)
    limited = await ask(team, max_tokens=10)
    assert problem(limited) == (429, "rate_limit_error", None, 429)
    assert said(limited).startswith(f"Rate limit exceeded for team: {team.id}. Limit type: requests. Current limit: 2,")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert limited.headers["rate_limit_type"] == "requests"
    assert limited.headers["x-olla-model"] == team.models[0]


async def test_a_key_runs_only_so_many_at_once(scene: Scene, team: Team):
    await scene.rows("update virtual_keys set max_parallel_requests = 1 where team_id = :id returning id", id=team.id)
    scene.app.state.authenticator.forget()
    scene.provider.held.clear()
    first = asyncio.create_task(ask(team))
    await scene.provider.until_asked(1)
    assert problem(await ask(team, messages=HELLO)) == (429, "rate_limit_error", None, 429)
    scene.provider.held.set()
    assert (await first).status_code == 200


async def test_the_client_says_how_often_a_candidate_is_tried(scene: Scene, team: Team):
    wrong: list[Any] = [refused() for _ in range(4)]
    for retries, tries in ((0, 1), (1, 2), (None, 3)):
        scene.provider.steps, before = list(wrong), len(scene.provider.asked)
        found = await ask(team, num_retries=retries)
        assert found.status_code == 502
        await asyncio.gather(*scene.tasks)
        assert len(scene.provider.asked) - before == tries
        assert found.headers["x-litellm-attempted-retries"] == str(tries - 1)
    assert (await scene.row("select count(*) as n from calls where team_id = :id", id=team.id)).n == 3
