"""Requests of the gateway that are repeated, streamed, or whose end does not come in time."""

import asyncio
import re

import pytest

from shared.messages import Ended
from tests.api.gateway import CHAT, ask, frames, only_call, problem, said
from tests.scene import HELLO, Scene, Team, agrees, answer, refused, saying


async def test_a_repeat_is_answered_with_the_first_answer(scene: Scene, team: Team):
    first = await ask(team, Idempotency_Key="k")
    again = await ask(team, Idempotency_Key="k")
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-call-id"] == first.headers["x-call-id"]
    assert again.headers["server-timing"].startswith("queue;dur=0.0, provider;dur=0, ")
    assert again.headers["x-litellm-response-cost"] == first.headers["x-litellm-response-cost"]
    other = await ask(team, Idempotency_Key="k", temperature=1)
    assert problem(other) == (422, "invalid_request_error", None, "idempotency_key_reused")
    assert problem(await ask(team, Idempotency_Key="")) == (400, "invalid_request_error", None, 400)
    assert len(scene.provider.asked) == 1

    await scene.rows("delete from call_payloads where call_id = :id returning call_id", id=first.headers["x-call-id"])
    erased = (await ask(team, Idempotency_Key="k")).json()
    assert erased["usage"] == first.json()["usage"]
    assert erased["choices"][0]["message"]["content"] is None
    await agrees(scene, team)


async def test_a_repeat_of_a_running_call_is_not_to_be_tried_again_and_a_failed_one_is(scene: Scene, team: Team):
    scene.provider.held.clear()
    scene.provider.steps = [refused(again="never"), answer("second")]
    first = asyncio.create_task(ask(team, Idempotency_Key="k"))
    await scene.provider.until_asked(1)
    running = await ask(team, Idempotency_Key="k")
    assert problem(running) == (409, "conflict", None, 409)
    assert (running.headers["x-should-retry"], running.headers["retry-after"]) == ("false", "1")
    scene.provider.held.set()
    assert (await first).status_code == 502
    again = await ask(team, Idempotency_Key="k")
    assert again.json()["choices"][0]["message"]["content"] == "second"


async def test_a_stream_is_told_in_openais_frames_and_again_from_its_first_chunk(scene: Scene, team: Team):
    scene.provider.steps = [saying("Once", " upon")]
    found = await ask(team, stream=True, Idempotency_Key="k")
    told, call = frames(found), await only_call(team)
    head = {"id": f"chatcmpl-{call.id.hex}", "created": int(call.created_at.timestamp()), "model": team.models[0]}
    assert all((head | {"object": "chat.completion.chunk"}).items() <= chunk.items() for chunk in told)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in told] == ["Once", " upon", None]
    assert told[-1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert not any("usage" in chunk for chunk in told)
    assert (found.headers["x-call-id"], found.headers["cache-control"]) == (str(call.id), "no-cache")
    assert found.headers["x-job-id"] == str(call.job_id)
    assert call.stream

    again = await ask(team, stream=True, Idempotency_Key="k")
    assert frames(again) == told
    assert again.headers["idempotent-replayed"] == "true"
    for name in ("x-job-id", "x-call-id", "x-litellm-call-id", "x-litellm-model-group"):
        assert again.headers[name] == found.headers[name]
    assert len(scene.provider.asked) == 1
    await agrees(scene, team)


async def test_the_job_that_a_call_goes_into_is_part_of_what_is_asked(team: Team):
    one, other = [(await team.job())["job_id"] for _ in range(2)]
    first = await ask(team, Idempotency_Key="k", X_Job_Id=one)
    again = await ask(team, Idempotency_Key="k", X_Job_Id=one)
    assert again.headers["x-call-id"] == first.headers["x-call-id"]
    for more in ({"X_Job_Id": other}, {}):
        elsewhere = await ask(team, Idempotency_Key="k", **more)
        assert problem(elsewhere) == (422, "invalid_request_error", None, "idempotency_key_reused")


async def test_a_stream_tells_what_was_used_where_it_is_asked(scene: Scene, team: Team):
    scene.provider.steps = [saying("Once")]
    told = frames(await ask(team, stream=True, stream_options={"include_usage": True}))
    assert [chunk["usage"] for chunk in told[:-1]] == [None] * (len(told) - 1)
    call = await only_call(team)
    usage = {"prompt_tokens": 200, "completion_tokens": 250, "total_tokens": 450}
    assert told[-1]["choices"] == []
    assert {**usage, "cost": call.client_cost_nanousd / 10**9}.items() <= told[-1]["usage"].items()


async def test_what_fails_before_the_first_chunk_has_its_true_status(scene: Scene, team: Team):
    scene.provider.steps = [refused("provider_rate_limit", again="never", retry_after_s=7)]
    limited = await ask(team, stream=True)
    assert problem(limited) == (429, "rate_limit_error", None, 429)
    assert limited.headers["retry-after"] == "7"
    assert limited.json()["error"]["provider"] == "openai"
    assert limited.headers["x-call-id"] == str((await only_call(team)).id)
    assert problem(await ask(team, stream=True, model="nothing"))[0] == 404
    assert problem(await ask(team, stream="yes"))[:3] == (400, "invalid_request_error", "stream")


async def test_the_deadline_is_answered_in_words(scene: Scene, team: Team):
    scene.provider.held.clear()
    late = await ask(team, timeout=0.2)
    assert problem(late) == (504, "timeout_error", None, "deadline_exceeded")
    assert late.json()["error"]["provider"] == "openai"
    waited = re.search(r"provider;dur=(\d+)", late.headers["server-timing"])
    assert waited is not None
    assert int(waited[1]) > 50, "the provider was waited for, not Waybill"
    assert late.headers["x-call-id"] == str((await only_call(team)).id)


async def test_a_call_that_nobody_took_is_given_up_at_its_deadline(scene: Scene, team: Team):
    scene.live = False
    late = await ask(team, timeout=0.1, Idempotency_Key="k")
    assert problem(late) == (504, "timeout_error", None, "deadline_exceeded")
    assert said(late) == "LLM call failed: deadline exceeded"
    assert not scene.provider.asked


async def test_a_call_that_is_cancelled_meanwhile_is_a_conflict(scene: Scene, team: Team):
    scene.provider.held.clear()
    waiting = asyncio.create_task(ask(team))
    await scene.provider.until_asked(1)
    call = await only_call(team)
    await team.post(f"/jobs/{call.job_id}/calls/{call.id}/cancel")
    scene.ring(Ended(ids=(call.id,)))
    found = await waiting
    assert problem(found) == (409, "conflict", None, "cancelled")
    assert (said(found), found.headers["x-should-retry"]) == ("Call was cancelled", "false")
    assert found.json()["error"]["provider"] is None


@pytest.mark.parametrize("more", [{}, {"Idempotency_Key": "k"}], ids=["no key", "key"])
async def test_who_waits_while_the_process_closes_is_told_where_the_call_goes_on(
    scene: Scene, team: Team, more: dict[str, str]
):
    scene.provider.held.clear()
    waiting = asyncio.create_task(ask(team, **more))
    await scene.provider.until_asked(1)
    await scene.app.state.desk.waiters.close()
    found = await waiting
    assert problem(found) == (503, "service_unavailable", None, 503)
    assert found.headers["retry-after"] == "1"
    call = await only_call(team)
    assert f"/api/jobs/{call.job_id}/calls/{call.id}" in said(found)


async def test_a_key_of_another_path_is_another_key(team: Team):
    first = await ask(team, Idempotency_Key="k")
    elsewhere = await ask(team, "/olla/litellm" + CHAT, messages=HELLO, Idempotency_Key="k")
    assert first.headers["x-call-id"] != elsewhere.headers["x-call-id"]
