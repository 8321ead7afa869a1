"""Waited for, polled, or called back: three ways to hear of one row, and they say the same."""

import asyncio
import base64

import httpx

from tests.stack import Stack
from tests.team import Call, Team, accepted

SECRET = f"whsec_{base64.b64encode(b'w' * 32).decode()}"
QUESTION = "What is the capital of France?"


async def test_a_call_is_waited_for_polled_and_called_back_and_all_say_the_same(stack: Stack) -> None:
    team = await stack.team()
    hooks = await stack.receiver()
    hooks.secret = SECRET
    job = (await team.job())["job_id"]
    await stack.provider.hold(team.model)
    waiting = asyncio.create_task(team.ask(job, QUESTION, callback_url=hooks.url, callback_secret=SECRET))
    await stack.provider.asked(team.model)
    call = await only_call(team, job)
    polling = asyncio.create_task(team.client.get(call.path, params={"wait": 30}))
    preferring = asyncio.create_task(team.client.get(call.path, headers={"Prefer": "wait=30"}))

    await stack.provider.release()
    waited, polled, preferred = accepted(await waiting), accepted(await polling), accepted(await preferring)
    (event,) = await hooks.arrived(1, "call.completed")
    followed = accepted(await team.client.get(event["data"]["result_url"]))

    assert waited["response"] == {"role": "assistant", "content": "Paris", "finish_reason": "stop"}
    for answer in (polled, preferred, followed):
        assert answer.pop("callback")["url"] == hooks.url, "its state moves on between the answers"
    assert polled == preferred == followed
    assert waited == {name: polled[name] for name in waited}
    assert event["data"]["id"] == waited["call_id"] == call.call_id
    same = ("call_id", "status", "purpose", "model", "cost_usd", "attempt_count", "error")
    assert {name: event["data"][name] for name in same} == {name: polled[name] for name in same}
    assert event["data"]["total_tokens"] == waited["usage"]["total_tokens"] > 0


async def test_a_client_that_will_not_wait_gets_202_with_the_place_to_read(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]
    await stack.provider.hold(team.model)

    at_once = await team.ask(job, QUESTION, headers={"Prefer": "respond-async"})
    a_second = await team.ask(job, QUESTION, headers={"Prefer": "wait=1"})

    for answer, applied in ((at_once, "respond-async"), (a_second, "wait=1")):
        assert answer.status_code == httpx.codes.ACCEPTED
        assert answer.headers["Preference-Applied"] == applied
        assert answer.headers["Location"] == answer.json()["status_url"]
        assert answer.headers["X-Call-Id"] == answer.json()["call_id"]
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
    await stack.provider.release()
    for answer in (at_once, a_second):
        found = accepted(await team.client.get(answer.headers["Location"], params={"wait": 30}))
        assert found["response"]["content"] == "Paris"


async def test_a_reader_that_knows_the_etag_hears_only_of_changes(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit(QUESTION)
    await stack.provider.asked(team.model)
    first = await team.client.get(call.path)
    known = {"If-None-Match": first.headers["ETag"]}

    again = await team.client.get(call.path, headers=known)
    held_in_vain = await team.client.get(call.path, headers=known, params={"wait": 1})
    holding = asyncio.create_task(team.client.get(call.path, headers=known, params={"wait": 30}))
    await stack.provider.release()
    changed = await holding
    after = {"If-None-Match": changed.headers["ETag"]}
    final = await team.client.get(call.path, headers=after, params={"wait": 30})

    assert first.json()["status"] == "in_progress"
    for answer in (again, held_in_vain, final):
        assert (answer.status_code, answer.content) == (httpx.codes.NOT_MODIFIED, b"")
    assert changed.status_code == httpx.codes.OK
    assert changed.json()["response"]["content"] == "Paris"


async def test_a_client_that_hangs_up_loses_nothing(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]
    await stack.provider.hold(team.model)
    waiting = asyncio.create_task(team.ask(job, QUESTION))
    await stack.provider.asked(team.model)
    call = await only_call(team, job)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stack.provider.release()

    assert (await team.result(call))["response"]["content"] == "Paris"
    assert await stack.provider.count(team.model) == 1


async def test_a_job_is_waited_for_in_its_request_or_read_when_it_ends(stack: Stack) -> None:
    team = await stack.team()
    body = {"team_id": team.team_id, "job_type": "test", "calls": [team.call("one"), team.call("two")]}

    waited = await team.client.post("/api/jobs/create", json=body, headers={"Prefer": "wait=30"})

    assert (waited.status_code, waited.headers["Preference-Applied"]) == (httpx.codes.OK, "wait=30")
    ended = waited.json()
    assert (ended["status"], ended["total_calls"], ended["credits_remaining"]) == ("completed", 2, 999)
    read = await team.ended(ended["job_id"])
    assert (read["status"], read["completed_at"]) == (ended["status"], ended["completed_at"])
    assert (await team.complete(ended["job_id"])).json() == ended


async def test_complete_waits_for_calls_that_are_not_finished_when_asked_to(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]
    await stack.provider.hold(team.model)
    for _ in range(2):
        await team.submit(QUESTION, job_id=job)
    await stack.provider.asked(team.model, 2)

    refused = await team.complete(job)
    body, path = {"status": "completed"}, f"/api/jobs/{job}/complete"
    waiting = asyncio.create_task(team.client.post(path, json=body, headers={"Prefer": "wait=30"}))
    await stack.provider.release()

    assert (refused.status_code, refused.json()) == (409, {"detail": "Job has 2 unfinished calls"})
    assert int(refused.headers["Retry-After"]) >= 1
    assert accepted(await waiting)["costs"]["credit_applied"] is True


async def only_call(team: Team, job: str) -> Call:
    (call,) = accepted(await team.client.get(f"/api/jobs/{job}/calls"))["calls"]
    return Call(job, call["call_id"])
