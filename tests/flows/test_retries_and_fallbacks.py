"""What a provider does wrong is tried again or elsewhere, on record, and asked exactly as often as needed."""

from tests.stack import Stack


async def test_two_errors_and_an_answer_are_three_attempts_on_record(stack: Stack):
    team = await stack.team()
    await stack.provider.script(
        {"fault": "status", "status": 500}, {"fault": "status", "status": 503}, match=team.model
    )
    call = await team.submit("capital of France?")
    shown = await team.result(call)

    assert (shown["status"], shown["attempt_count"]) == ("completed", 3)
    assert [(a["outcome"], a["http_status"]) for a in shown["attempts"]] == [
        ("failed", 500), ("failed", 503), ("succeeded", None),
    ]  # fmt: skip
    last = shown["attempts"][-1]
    assert (last["model_pricing_input"], last["model_pricing_output"], last["price_source"]) == (30, 60, "alias")
    assert last["provider_request_id"]
    assert await stack.provider.count(team.model) == 3
    own = (await team.client.get(call.path)).json()
    assert {"attempts", "provider", "provider_cost_usd", "resolved_model"}.isdisjoint(own)
    assert await team.charges() == [1]


async def test_retry_after_is_honoured(stack: Stack):
    team = await stack.team()
    limited = {"fault": "status", "status": 429, "headers": {"Retry-After": "1"}}
    await stack.provider.script(limited, match=team.model)
    assert (await team.result(await team.submit("hello")))["attempt_count"] == 2

    first, second = await stack.provider.requests(team.model)
    [row] = await stack.sql(
        "select extract(epoch from max(a.started_at) - min(a.ended_at))::float8 as s from attempts a join calls c "
        "on c.id = a.call_id where c.team_id = %s", team.team_id,
    )  # fmt: skip
    assert row.s >= 1
    assert first["seq"] < second["seq"]


async def test_after_three_tries_the_fallback_answers(stack: Stack):
    team = await stack.team(fallbacks=1)
    await stack.provider.script({"fault": "status", "status": 500}, match=team.models[0], repeat=True)
    shown = await team.result(await team.submit("capital of France?"))

    assert (shown["status"], shown["model"], shown["attempt_count"]) == ("completed", team.alias, 4)
    assert [await stack.provider.count(model) for model in team.models] == [3, 1]
    assert shown["resolved_model"] == f"openai/{team.models[1]}"


async def test_refused_credentials_go_to_the_fallback_at_once(stack: Stack):
    team = await stack.team(fallbacks=1)
    await stack.provider.script({"fault": "status", "status": 401}, match=team.models[0], repeat=True)
    await team.result(await team.submit("capital of France?"))
    assert [await stack.provider.count(model) for model in team.models] == [1, 1]


async def test_a_bad_request_is_asked_once_and_costs_no_credit(stack: Stack):
    team = await stack.team(fallbacks=1)
    await stack.provider.script({"fault": "status", "status": 400}, match=team.models[0], repeat=True)
    call = await team.submit("hello")
    shown = await team.result(call)

    assert (shown["status"], shown["error"]["code"]) == ("failed", "provider_bad_request")
    assert [await stack.provider.count(model) for model in team.models] == [1, 0]
    assert (await team.ended(call.job_id))["failure_reason"] == "all_calls_failed"
    assert await team.charges() == []
    assert (await team.balance())["credits_held"] == 0
