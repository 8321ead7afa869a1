"""Calls through the OpenAI-compatible gateway: the same work, books and limits as calls of a job, in OpenAI's words."""

import asyncio

import orjson

from shared.attempt_reports import Usage
from tests.api.admin import made, unique
from tests.api.gateway import CHAT, ask, only_call, problem, said, stored
from tests.scene import COST_NANOUSD, HELLO, Scene, Team, agrees, answer, refused

UNUSED = {"audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}


async def test_a_chat_is_answered_in_openais_form_and_is_a_job_of_its_own(scene: Scene, team: Team):
    found = await ask(team, user="u-1", temperature=0.5, logit_bias={"5": -100})
    call, job_id = await only_call(team), found.headers["x-job-id"]
    assert found.status_code == 200, found.text
    assert found.json() == {
        "id": f"chatcmpl-{call.id.hex}",
        "object": "chat.completion",
        "created": int(call.created_at.timestamp()),
        "model": team.models[0],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Paris", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 200,
            "completion_tokens": 250,
            "total_tokens": 450,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, **UNUSED},
            "cost": COST_NANOUSD / 10**9,
        },
        "system_fingerprint": None,
        "service_tier": None,
    }
    assert found.headers["x-call-id"] == str(call.id) == found.headers["x-litellm-call-id"]
    assert float(found.headers["x-litellm-response-cost"]) == COST_NANOUSD / 10**9
    asked = {"messages": HELLO, "temperature": 0.5, "user": "u-1", "logit_bias": {"5": -100}}
    assert orjson.dumps(scene.provider.asked[0].request, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        asked, option=orjson.OPT_SORT_KEYS
    )

    job = await team.read(job_id)
    wanted = {
        "job_type": "gateway",
        "status": "completed",
        "user_id": "u-1",
        "auto_complete": True,
        "credits_charged": 1,
    }
    assert wanted.items() <= job.items()
    assert (await team.read(job_id, str(call.id)))["response"]["content"] == "Paris"
    assert await scene.events(job_id) == ["job.created", "job.started", "call.completed", "job.completed"]
    await agrees(scene, team)


async def test_all_that_the_model_said_is_passed_on_and_nothing_else(scene: Scene, team: Team):
    tools = [{"id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in range(2)]
    logprobs = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}], "refusal": None}
    message = {"role": "assistant", "content": None, "tool_calls": tools, "reasoning_content": "Hm.", "annotations": []}
    choices = [
        {"index": 0, "message": {**message, "provider_specific_fields": {}}, "finish_reason": "tool_calls"},
        {
            "index": 1,
            "message": {"role": "assistant", "content": None, "refusal": "No."},
            "finish_reason": "stop",
            "logprobs": logprobs,
        },
    ]
    more = {"service_tier": "flex", "system_fingerprint": "fp_1"}
    used = Usage(prompt_tokens=9, completion_tokens=8, cached_tokens=7, reasoning_tokens=6, source="provider")
    scene.provider.steps = [stored({"choices": choices, **more}, used)]
    body = (await ask(team, n=2)).json()
    assert body["choices"] == [
        {
            "index": 0,
            "message": {**message, "refusal": None},
            "logprobs": None,
            "finish_reason": "tool_calls",
        },
        {**choices[1], "message": {"role": "assistant", "content": None, "refusal": "No."}},
    ]
    assert {name: body[name] for name in more} == more
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 7
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 6


async def test_a_call_goes_into_the_open_job_that_the_client_names(scene: Scene, team: Team):
    job_id = (await team.job(priority=5))["job_id"]
    for _ in range(2):
        assert (await ask(team, X_Job_Id=job_id)).headers["x-job-id"] == job_id
    assert {call.priority for call in await scene.rows("select * from calls where team_id = :id", id=team.id)} == {5}
    job = await team.read(job_id)
    assert (job["status"], job["counts"]["completed"]) == ("in_progress", 2)

    other = await scene.team()
    foreign = (await other.job())["job_id"]
    assert problem(await ask(team, X_Job_Id=foreign)) == (403, "permission_error", None, 403)
    for unknown in ("nonsense", "019aa3c2-7b1e-7c44-9d0a-3f5b1c2d4e6f"):
        assert problem(await ask(team, X_Job_Id=unknown)) == (404, "not_found_error", None, 404)
    await team.complete(job_id)
    over = await ask(team, X_Job_Id=job_id)
    assert problem(over) == (409, "conflict", None, 409)
    assert over.headers["x-should-retry"] == "false"
    assert len(scene.provider.asked) == 2


async def test_nothing_that_a_client_adds_reaches_the_provider(scene: Scene, team: Team):
    hostile = {
        "api_base": "http://evil", "base_url": "http://evil", "api_key": "sk-evil", "custom_llm_provider": "x",
        "extra_headers": {"a": "b"}, "extra_body": {"a": "b"}, "mock_response": "no", "input_cost_per_token": 0,
        "model_list": [], "litellm_params": {"api_base": "http://evil"}, "stream_timeout": 1,
    }  # fmt: skip
    messages = [{"role": "user", "content": "Hi", **hostile}]
    formatted = {"type": "json_object", **hostile}
    options = {"include_usage": True, **hostile}
    found = await ask(team, **hostile, messages=messages, response_format=formatted, stream_options=options)
    assert found.json()["choices"][0]["message"]["content"] == "Paris"
    asked = scene.provider.asked[0].request
    assert asked == {"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object"}}


async def test_every_kind_of_message_is_taken(scene: Scene, team: Team):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}}
    text = {"type": "text", "text": "see http://example.com"}
    tool_calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        {"role": "developer", "content": "Be brief"},
        {"role": "user", "content": [text, image, sound, file], "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": tool_calls},
        {"role": "tool", "content": "4", "tool_call_id": "call_1"},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": None},
        {"role": "assistant", "audio": {"id": "audio_1"}},
        {"role": "assistant", "content": None, "refusal": "No."},
    ]
    assert (await ask(team, messages=messages)).status_code == 200
    assert scene.provider.asked[0].request["messages"] == messages


async def test_labels_and_wishes_are_kept_on_the_call(scene: Scene, team: Team):
    labels = {"metadata": {"tags": ["a"], "project": "x"}, "tags": ["a", "b"]}
    found = await ask(team, **labels, num_retries=2, timeout=90, X_Litellm_Call_Id="mine-1")
    call = await only_call(team)
    assert call.metadata == {"tags": ["a", "b"], "project": "x"}
    assert (call.retries, call.client_call_id, found.headers["x-litellm-call-id"]) == (2, "mine-1", "mine-1")
    assert 89 < (call.deadline_at - call.created_at).total_seconds() < 91
    event = await scene.row("select body::json -> 'data' as data from events where subject_id = :id", id=call.id)
    assert event.data["metadata"] == call.metadata

    second = await ask(team, timeout=9000, X_Litellm_Call_Id="x" * 257)
    assert second.headers["x-litellm-call-id"] == second.headers["x-call-id"]
    row = await scene.row("select * from calls where id = :id", id=second.headers["x-call-id"])
    assert row.client_call_id is None
    assert row.retries is None
    assert 599 < (row.deadline_at - row.created_at).total_seconds() < 601


async def test_the_clients_own_fallbacks_come_after_the_models(scene: Scene):
    team = await scene.team(models=2)
    third, group = (
        unique("third"),
        (await scene.row("select group_name from team_access_groups where team_id = :id", id=team.id)).group_name,
    )
    await scene.api.alias(alias=third, api_key="sk-x", access_groups=[group], pricing_input=1, pricing_output=1)
    never = refused("provider_auth", again="next")
    scene.provider.steps = [never, never, answer("third")]
    found = await ask(team, fallbacks=[third, team.models[1]])
    assert [call.alias for call in scene.provider.asked] == [*team.models, third]
    assert found.json()["choices"][0]["message"]["content"] == "third"
    assert found.json()["model"] == team.models[0]
    assert found.headers["x-litellm-attempted-fallbacks"] == "2"
    assert found.headers["x-olla-routing-decision"] == "fallback"

    unknown = await ask(team, fallbacks=["nothing"])
    assert problem(unknown) == (404, "invalid_request_error", "fallbacks", "model_not_found")
    assert "'nothing'" in said(unknown)
    foreign = (await scene.team()).models[0]
    assert problem(await ask(team, fallbacks=[foreign])) == (
        403,
        "permission_error",
        "fallbacks",
        "team_model_access_denied",
    )


async def test_a_keys_own_names_stand_for_models(scene: Scene):
    team = await scene.team(models=2)
    await scene.rows(
        "update virtual_keys set aliases = cast(:aliases as jsonb) where team_id = :id returning id",
        id=team.id, aliases=f'{{"fast": "{team.models[1]}"}}',
    )  # fmt: skip
    found = await ask(team, model="fast")
    assert found.json()["model"] == "fast" == found.headers["x-olla-model"] == (await only_call(team)).model
    assert [call.alias for call in scene.provider.asked] == [team.models[1]]
    job_id = (await team.job())["job_id"]
    assert (await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO, "model": "fast"})).json()["model"] == "fast"


async def test_a_narrowed_key_is_told_so_and_may_use_what_its_own_names_stand_for(scene: Scene):
    team = await scene.team(models=2)
    key = made(await scene.api.post(f"/teams/{team.id}/keys", {"models": [team.models[1]]}))
    denied = await ask(team, key=key["virtual_key"])
    assert problem(denied) == (403, "permission_error", "model", "key_model_access_denied")
    assert denied.headers["x-olla-routing-decision"] == "rejected"
    assert (await ask(team, key=key["virtual_key"], model=team.models[1])).status_code == 200
    await scene.rows(
        "update virtual_keys set models = '{fast}', aliases = cast(:aliases as jsonb) where id = :id returning id",
        id=key["key_id"], aliases=f'{{"fast": "{team.models[0]}"}}',
    )  # fmt: skip
    scene.app.state.authenticator.forget()
    assert (await ask(team, key=key["virtual_key"], model="fast")).status_code == 200
    assert problem(await ask(team, key=key["virtual_key"], model=team.models[1]))[0] == 403


async def test_a_refusal_speaks_of_the_name_that_was_asked_for(scene: Scene, team: Team):
    foreign = (await scene.team()).models[0]
    for stands_for, status in ((foreign, 403), ("nothing", 404)):
        await scene.rows(
            "update virtual_keys set aliases = cast(:aliases as jsonb) where team_id = :id returning id",
            id=team.id, aliases=f'{{"fast": "{stands_for}"}}',
        )  # fmt: skip
        scene.app.state.authenticator.forget()
        denied = await ask(team, model="fast")
        assert denied.status_code == status
        assert "'fast'" in said(denied)
        assert stands_for not in denied.text


async def test_the_gateway_is_there_under_its_prefix_and_without_v1(team: Team):
    for path in ("/olla/litellm" + CHAT, "/olla/litellm/chat/completions"):
        assert (await ask(team, path, messages=HELLO)).status_code == 200


async def test_the_client_may_leave_and_the_call_goes_on(scene: Scene, team: Team):
    scene.provider.held.clear()
    waiting = asyncio.create_task(ask(team))
    await scene.provider.until_asked(1)
    waiting.cancel()
    await asyncio.wait([waiting])
    scene.provider.held.set()
    await asyncio.gather(*scene.tasks)
    call = await only_call(team)
    assert call.state == "completed"
    await agrees(scene, team)
