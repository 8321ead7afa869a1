"""A call's answer streamed to its client: live, again, and from where the client is."""

import asyncio
import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest

from api.streams import Pace
from shared.redis_keys import chunks
from shared.runtime import redis_client
from tests.api.listening import Listener, listening
from tests.scene import HELLO, Scene, Team, answer, refused, saying
from workers.calls import Calls

USAGE = {"prompt_tokens": 200, "completion_tokens": 250, "total_tokens": 450}


@pytest.fixture
async def job_id(team: Team) -> str:
    found: str = (await team.job())["job_id"]
    return found


def stream(team: Team, job_id: str, **headers: str) -> Any:
    """A streamed call."""
    return listening(team.scene, team.key, "POST", f"/jobs/{job_id}/llm-call-stream", {"messages": HELLO}, **headers)


def resumed(team: Team, job_id: str, call_id: str, query: str = "", **headers: str) -> Any:
    """The stream of a call that was made before."""
    return listening(team.scene, team.key, "GET", f"/jobs/{job_id}/calls/{call_id}/stream{query}", **headers)


async def whole(asked: Any) -> Listener:
    async with asked as heard:
        found: Listener = await heard.finish()
        return found


async def streamed(team: Team, job_id: str, *pieces: Any, **fields: Any) -> Listener:
    """All of a call that is told in these pieces."""
    team.scene.provider.steps = [saying(*pieces, **fields)]
    return await whole(stream(team, job_id))


async def aged(scene: Scene, call_id: str) -> None:
    """A call whose chunks are kept no longer."""
    await scene.rt.redis.delete(chunks(UUID(call_id)))
    await scene.rows(
        "update calls set completed_at = completed_at - interval '1 hour' where id = :id returning id", id=UUID(call_id)
    )


async def erased(scene: Scene, call_id: str) -> None:
    """A call whose texts are kept no longer."""
    await scene.rows("delete from call_payloads where call_id = :id returning call_id", id=UUID(call_id))


async def test_chunks_come_as_they_are_said(scene: Scene, team: Team, job_id: str):
    go_on = asyncio.Event()
    scene.provider.steps = [saying("Once", " upon", go_on, " a time")]
    async with stream(team, job_id) as heard:
        await heard.until(2)
        assert (heard.words, heard.is_over) == ("Once upon", False)
        go_on.set()
        await heard.finish()
    assert heard.words == "Once upon a time"


async def test_every_byte_of_a_stream_is_as_documented(team: Team, job_id: str):
    heard = await streamed(team, job_id, [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}}])
    call_id = heard.answered["x-call-id"]
    call = await team.read(job_id, call_id)
    head = b'"id":"chatcmpl-%b","object":"chat.completion.chunk","created":%d,"model":"%b"' % (
        UUID(call_id).hex.encode(),
        call["created"],
        team.models[0].encode(),
    )
    assert heard.raw == (
        b'id: 1\ndata: {%b,"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},'
        b'"finish_reason":null}]}\n\n'
        b'id: 2\ndata: {%b,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":200,"completion_tokens":250,"total_tokens":450}}\n\n'
        b"data: [DONE]\n\n"
    ) % (head, head)
    expected = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "x-job-id": job_id,
        "location": f"/api/jobs/{job_id}/calls/{call_id}",
    }
    assert expected.items() <= heard.answered.items()
    assert "content-length" not in heard.answered


async def test_each_choice_has_its_finish_and_the_last_has_the_usage(team: Team, job_id: str):
    said = [{"index": n, "message": {"role": "assistant", "content": "x"}, "finish_reason": "length"} for n in (0, 1)]
    two = replace(answer(), response=orjson.dumps({"choices": said}).decode())
    heard = await streamed(team, job_id, [{"index": n, "delta": {"content": "x"}} for n in (0, 1)], then=two)
    *_, first, last = heard.chunks
    assert [(one["choices"][0]["index"], one["choices"][0]["finish_reason"]) for one in (first, last)] == [
        (0, "length"),
        (1, "length"),
    ]
    assert ("usage" in first, last["usage"]) == (False, USAGE)
    rest = await whole(resumed(team, job_id, heard.answered["x-call-id"], Last_Event_ID="2"))
    assert rest.frames == heard.frames[2:]


async def test_a_call_that_fails_before_its_first_chunk_is_an_ordinary_refusal(scene: Scene, team: Team, job_id: str):
    scene.provider.steps = [refused("provider_rate_limit", again="never", retry_after_s=7)]
    heard = await whole(stream(team, job_id))
    assert (heard.status, heard.json()) == (429, {"detail": "LLM call failed: provider rate limit"})
    assert heard.answered["retry-after"] == "7"
    assert {"location", "x-call-id"} <= heard.answered.keys()


async def test_a_stream_that_breaks_off_says_so_and_is_done(team: Team, job_id: str):
    heard = await streamed(team, job_id, "Once", then=refused())
    assert heard.status == 200
    assert heard.words == "Once"
    assert heard.chunks[-1] == {
        "error": {
            "message": "LLM call failed: stream interrupted",
            "type": "api_connection_error",
            "code": "stream_interrupted",
        }
    }
    assert heard.is_done


async def test_silence_is_broken_by_a_comment_that_commits_the_answer(scene: Scene, team: Team, job_id: str):
    scene.app.state.desk = replace(scene.app.state.desk, pace=Pace(silence_s=0.05))
    fail = asyncio.Event()
    scene.provider.steps = [saying(fail, then=refused(again="never"))]
    async with stream(team, job_id) as heard:
        await heard.until(3)
        assert (heard.status, set(heard.frames)) == (200, {b": keepalive"})
        fail.set()
        await heard.finish()
    assert heard.chunks[-1]["error"]["code"] == "provider_error"
    assert heard.is_done


async def test_when_the_client_leaves_the_call_goes_on_and_nobody_is_remembered(scene: Scene, team: Team, job_id: str):
    go_on = asyncio.Event()
    scene.provider.steps = [saying("Once", go_on, " upon")]
    async with stream(team, job_id) as heard:
        await heard.until(1)
    desk = scene.app.state.desk
    assert (desk.streams._feeds, desk.waiters._waiting) == ({}, {})
    go_on.set()
    call = await team.get(f"/jobs/{job_id}/calls/{heard.answered['x-call-id']}?wait=10")
    assert call.json()["response"]["content"] == "Once upon"


async def test_a_client_that_leaves_before_the_first_chunk_is_forgotten_too(scene: Scene, team: Team, job_id: str):
    scene.provider.held.clear()
    async with stream(team, job_id):
        await scene.provider.until_asked(1)
    assert scene.app.state.desk.streams._feeds == {}


@pytest.mark.parametrize("way", ["header", "query"])
async def test_a_stream_is_resumed_from_any_chunk_to_the_same_end(team: Team, job_id: str, way: str):
    first = await streamed(team, job_id, "a", "b", "c")
    assert first.ids == [1, 2, 3, 4]
    call_id = first.answered["x-call-id"]
    for n in range(5):
        asked = (
            resumed(team, job_id, call_id, Last_Event_ID=str(n))
            if way == "header"
            else resumed(team, job_id, call_id, f"?after={n}")
        )
        again = await whole(asked)
        assert again.frames == first.frames[n:], n


async def test_a_running_call_is_joined_in_the_middle_by_several(scene: Scene, team: Team, job_id: str):
    go_on = asyncio.Event()
    scene.provider.steps = [saying("a", "b", go_on, "c")]
    async with stream(team, job_id) as heard:
        await heard.until(2)
        call_id = heard.answered["x-call-id"]
        async with resumed(team, job_id, call_id) as late, resumed(team, job_id, call_id, Last_Event_ID="1") as later:
            await late.until(2)
            await later.until(1)
            go_on.set()
            await asyncio.gather(heard.finish(), late.finish(), later.finish())
    assert late.raw == heard.raw
    assert later.raw == heard.raw[heard.raw.index(b"id: 2") :]


async def test_a_call_made_without_a_stream_has_one_of_two_chunks(scene: Scene, team: Team, job_id: str):
    scene.provider.held.clear()
    call_id = await team.call(job_id)
    async with resumed(team, job_id, call_id) as live:
        await scene.provider.until_asked(1)
        scene.provider.held.set()
        await live.finish()
    (said, finished) = live.chunks
    assert said["choices"][0] == {
        "index": 0,
        "delta": {"role": "assistant", "content": "Paris"},
        "finish_reason": None,
    }
    assert (finished["choices"][0]["delta"], finished["usage"]) == ({}, USAGE)
    assert live.ids == [1, 2]
    again = await whole(resumed(team, job_id, call_id, Last_Event_ID="1"))
    assert again.frames == live.frames[1:]


async def test_tools_refusals_and_logprobs_are_told_of_a_stored_answer(scene: Scene, team: Team, job_id: str):
    tools = [{"id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)]
    message = {"role": "assistant", "content": None, "refusal": "no", "tool_calls": tools, "reasoning_content": "hm"}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": {"content": []}}
    scene.provider.steps = [replace(answer(), response=orjson.dumps({"choices": [choice]}).decode())]
    call_id = await team.call(job_id)
    said = (await whole(resumed(team, job_id, call_id))).chunks[0]["choices"][0]
    assert said["logprobs"] == {"content": []}
    assert said["delta"] == {
        "role": "assistant",
        "refusal": "no",
        "tool_calls": [{"index": index, **tool} for index, tool in enumerate(tools)],
        "reasoning_content": "hm",
    }


async def test_a_stream_no_longer_kept_is_told_from_the_stored_answer_or_not_at_all(
    scene: Scene, team: Team, job_id: str
):
    call_id = (await streamed(team, job_id, "a", "b")).answered["x-call-id"]
    await aged(scene, call_id)
    whole_one = await whole(resumed(team, job_id, call_id))
    assert [chunk["choices"][0]["delta"] for chunk in whole_one.chunks] == [{"role": "assistant", "content": "ab"}, {}]
    rest = await whole(resumed(team, job_id, call_id, Last_Event_ID="1"))
    assert (rest.status, rest.json()) == (410, {"detail": "Stream no longer available"})


async def test_erased_texts_have_no_stream(scene: Scene, team: Team, job_id: str):
    call_id = await team.call(job_id)
    await asyncio.gather(*scene.tasks)
    await erased(scene, call_id)
    heard = await whole(resumed(team, job_id, call_id))
    assert (heard.status, heard.json()) == (410, {"detail": "Stream no longer available"})


async def test_a_call_that_failed_is_told_again_as_far_as_it_came(team: Team, job_id: str):
    first = await streamed(team, job_id, "a", then=refused())
    again = await whole(resumed(team, job_id, first.answered["x-call-id"]))
    assert again.raw == first.raw


async def test_a_call_that_failed_without_a_word_has_its_status(scene: Scene, team: Team, job_id: str):
    scene.provider.steps = [refused(again="never")]
    call_id = await team.call(job_id)
    heard = await whole(resumed(team, job_id, call_id))
    assert (heard.status, heard.json()) == (502, {"detail": "LLM call failed: provider error"})


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "1e3", "٣", "9" * 30])
async def test_a_position_is_a_number(team: Team, job_id: str, given: str):
    call_id = await team.call(job_id)
    path = f"/jobs/{job_id}/calls/{call_id}/stream"
    asked = await team.get(f"{path}?after={given}")
    assert (asked.status_code, asked.json()) == (400, {"detail": "Invalid Last-Event-ID"})


async def test_nobody_is_ahead_of_a_stream(scene: Scene, team: Team, job_id: str):
    invalid = (400, {"detail": "Invalid Last-Event-ID"})
    go_on = asyncio.Event()
    scene.provider.steps = [saying("a", "b", go_on), answer()]
    async with stream(team, job_id) as live:
        await live.until(2)
        call_id = live.answered["x-call-id"]
        ahead = await whole(resumed(team, job_id, call_id, Last_Event_ID="3"))
        assert (ahead.status, ahead.json()) == invalid
        go_on.set()
        await live.finish()
    assert live.ids == [1, 2, 3]
    at_the_end = await whole(resumed(team, job_id, call_id, Last_Event_ID="3"))
    assert (at_the_end.ids, at_the_end.is_done) == ([], True)
    unstreamed = await team.call(job_id)
    for ended, beyond in ((call_id, "4"), (call_id, "9" * 15), (unstreamed, "3")):
        ahead = await whole(resumed(team, job_id, ended, Last_Event_ID=beyond))
        assert (ahead.status, ahead.json()) == invalid


async def test_a_stream_is_its_teams_and_any_admins(scene: Scene, team: Team, job_id: str):
    call_id = (await streamed(team, job_id, "a")).answered["x-call-id"]
    path = f"/jobs/{job_id}/calls/{call_id}/stream"
    stranger = await (await scene.team()).get(path)
    assert (stranger.status_code, stranger.json()["detail"]) == (403, "Job does not belong to your team")
    admins = await scene.api.get(path)
    assert b'"content":"a"' in admins.content
    unknown = await team.get(f"/jobs/{job_id}/calls/{job_id}/stream")
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "Call not found")


async def test_embeddings_have_no_stream(scene: Scene, team: Team, job_id: str):
    scene.live = False
    call_id = await team.call(job_id)
    await scene.rows("update calls set endpoint = 'embedding' where id = :id returning id", id=UUID(call_id))
    asked = await team.get(f"/jobs/{job_id}/calls/{call_id}/stream")
    assert (asked.status_code, asked.json()["detail"]) == (400, "Embeddings have no stream")


async def test_a_repeat_waits_for_the_end_and_is_then_told_all_of_it(scene: Scene, team: Team, job_id: str):
    go_on = asyncio.Event()
    scene.provider.steps = [saying("a", go_on, "b")]
    async with stream(team, job_id, Idempotency_Key="k") as first:
        await first.until(1)
        early = await whole(stream(team, job_id, Idempotency_Key="k"))
        assert (early.status, early.answered["retry-after"]) == (409, "1")
        go_on.set()
        await first.finish()
    again = await whole(stream(team, job_id, Idempotency_Key="k"))
    assert again.raw == first.raw
    assert again.answered["idempotent-replayed"] == "true"
    assert again.answered["x-call-id"] == first.answered["x-call-id"]
    assert len(scene.provider.asked) == 1


async def test_a_repeat_is_answered_also_when_the_texts_are_erased(scene: Scene, team: Team, job_id: str):
    async with stream(team, job_id, Idempotency_Key="k") as first:
        await first.finish()
    await aged(scene, first.answered["x-call-id"])
    await erased(scene, first.answered["x-call-id"])
    again = await whole(stream(team, job_id, Idempotency_Key="k"))
    assert (again.status, again.words, again.chunks[-1]["usage"]) == (200, "", USAGE)


async def test_without_redis_the_stored_answer_comes_in_one_chunk(scene: Scene, team: Team, job_id: str):
    worker = scene.worker
    assert isinstance(worker, Calls)
    lost = redis_client("redis://127.0.0.1:1")
    scene.app.state.desk = replace(scene.app.state.desk, streams=type(scene.app.state.desk.streams)(lost, "away"))
    await scene.app.state.desk.streams.open()
    heard = await streamed(team, job_id, "Once", " upon")
    await scene.app.state.desk.streams.close()
    assert [chunk["choices"][0]["delta"] for chunk in heard.chunks] == [
        {"role": "assistant", "content": "Once upon"},
        {},
    ]


async def test_a_process_that_closes_says_so_on_its_open_streams(scene: Scene, team: Team, job_id: str):
    go_on = asyncio.Event()
    scene.provider.steps = [saying("a", go_on, "b"), saying(go_on, "c")]
    async with stream(team, job_id) as begun, stream(team, job_id) as silent:
        await begun.until(1)
        await scene.provider.until_asked(2)
        await scene.app.state.desk.waiters.close()
        await asyncio.gather(begun.finish(), silent.finish())
        go_on.set()
    said = "The server is closing. The call goes on: resume the stream"
    assert begun.chunks[-1] == {"error": {"message": said, "type": "service_unavailable", "code": 503}}
    assert begun.is_done
    assert (silent.status, silent.json(), silent.answered["retry-after"]) == (503, {"detail": said}, "1")
    assert re.fullmatch(r"/api/jobs/.*", silent.answered["location"])
