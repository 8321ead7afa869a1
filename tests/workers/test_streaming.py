"""What a streamed call leaves on Redis and in its rows: every chunk once and in order, and never two answers."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest

from shared import chunks, redis_keys
from shared.chunks import Chunks
from tests.scene import Scene, Team, answer
from tests.waiting import until
from tests.workers.streams import (
    Streams,
    begun,
    books_hold,
    broken,
    end_of,
    entries,
    goes_on,
    run,
    said,
    saying,
    streamed,
    texts,
)
from workers import sweeper
from workers.calls import Calls
from workers.provider import Answer, Sink


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    """Of this module: it looks at all the books, and leaves leases that have expired."""
    return module_database_url


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(models=2)


async def test_what_the_provider_says_is_there_in_order_and_the_end_after_the_commit(scene: Scene, team: Team):
    job_id, call_id, worker = await streamed(scene, team, saying("Once", " upon", " a time"))
    await run(worker, call_id)

    found = await texts(scene, call_id)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in found] == ["Once", " upon", " a time"]
    shown = await team.read(job_id, str(call_id))
    head = {"id": f"chatcmpl-{call_id.hex}", "object": "chat.completion.chunk", "model": team.models[0]}
    for chunk in found:
        assert list(chunk) == ["id", "object", "created", "model", "choices"]
        assert {name: chunk[name] for name in head} == head
        assert (chunk["created"], chunk["choices"][0]["finish_reason"]) == (shown["created"], None)
    end = await end_of(scene, call_id)
    assert (end.state, end.first, end.error) == ("completed", 4, None)
    assert [orjson.loads(text)["choices"] for text in end.finishes] == [
        [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    ]
    assert orjson.loads(end.usage or b"") == {"prompt_tokens": 200, "completion_tokens": 250, "total_tokens": 450}
    assert float(end.cost_usd or 0) == shown["cost_usd"]
    assert shown["response"]["content"] == "Once upon a time"
    assert 3500 < await scene.rt.redis.ttl(redis_keys.chunks(call_id)) <= 3600
    await books_hold(scene)


async def test_no_second_chunk_goes_out_before_it_is_on_record_that_there_was_one(scene: Scene, team: Team):
    async def look(sink: Sink) -> Answer:
        async with scene.rt.db.transaction() as tx:
            await tx.exec_driver_sql("select from calls where id = %s for update", (call_id,))
            await sink.send(said("Once"))
            await until(lambda: entries(scene, call_id), "the first chunk is there")
            second = asyncio.create_task(sink.send(said(" upon")))
            await asyncio.sleep(0.05)
            [before] = await scene.attempts(str(call_id))
            assert (before.first_chunk_at, second.done(), len(await texts(scene, call_id))) == (None, False, 1)
        await second
        [after] = await scene.attempts(str(call_id))
        assert after.first_chunk_at is not None
        return answer("Once upon")

    _, call_id, worker = await streamed(scene, team, look)
    await run(worker, call_id)
    assert (await end_of(scene, call_id)).state == "completed"
    assert len(await texts(scene, call_id)) == 2


async def test_a_chunk_whose_worker_died_before_it_was_on_record_ends_the_call(scene: Scene, team: Team):
    """Another attempt would tell the client something else."""
    job_id, call_id, worker = await streamed(scene, team, saying("Once"))
    await worker.claim([call_id])
    id_, fields = chunks.written(Chunks(attempt=1, last=1, texts=[b"{}"]))
    await scene.rt.redis.xadd(redis_keys.chunks(call_id), fields, id=id_)
    async with scene.later(60) as later:
        await sweeper.Sweep(rt=replace(later, ring=scene.ring)).run()
        worker = Calls(replace(later, ring=scene.ring), worker._provider, "next-worker")
        await run(worker, call_id)

    shown = await team.read(job_id, str(call_id))
    assert (shown["status"], shown["error"]["code"], shown["cost_usd"]) == ("failed", "stream_interrupted", 0)
    assert [attempt.outcome for attempt in await scene.attempts(str(call_id))] == ["unknown", "failed"]
    assert isinstance(worker._provider, Streams)
    assert len(worker._provider.steps) == 1, "the provider was not asked again"
    assert (await end_of(scene, call_id)).attempt == 2
    await books_hold(scene)


async def test_a_failure_before_the_first_chunk_is_tried_again(scene: Scene, team: Team):
    _, call_id, worker = await streamed(scene, team, saying(end=broken()), saying("Once"))
    await run(worker, call_id)
    assert await entries(scene, call_id) == []
    await run(worker, call_id)

    assert [attempt.outcome for attempt in await scene.attempts(str(call_id))] == ["unknown", "succeeded"]
    assert [entry.attempt for entry in await entries(scene, call_id)] == [2, 2]


async def test_a_stream_that_breaks_off_ends_the_call_and_what_was_said_is_paid_for(scene: Scene, team: Team):
    job_id, call_id, worker = await streamed(scene, team, saying("Once", " upon", end=broken()))
    await run(worker, call_id)

    shown = await team.read(job_id, str(call_id))
    assert (shown["status"], shown["error"]["code"], shown["attempt_count"]) == ("failed", "stream_interrupted", 1)
    [attempt] = await scene.attempts(str(call_id))
    assert (attempt.outcome, attempt.usage_source, attempt.maybe_billed) == ("unknown", "estimated", True)
    assert attempt.completion_tokens == 3, "a token for each three bytes begun"
    assert attempt.prompt_tokens > 0
    assert shown["cost_usd"] == attempt.client_cost_nanousd / 1e9 > 0
    end = await end_of(scene, call_id)
    assert (end.state, end.finishes, end.first) == ("failed", (), 3)
    assert end.error == {
        "code": "stream_interrupted",
        "message": "LLM call failed: stream interrupted",
        "provider": "openai",
    }
    await books_hold(scene)


@pytest.mark.parametrize("code", ["provider_timeout", "internal_error"])
async def test_a_time_limit_and_our_own_bug_keep_their_name(scene: Scene, team: Team, code: str):
    job_id, call_id, worker = await streamed(scene, team, saying("Once", end=broken(code)))
    await run(worker, call_id)
    assert (await team.read(job_id, str(call_id)))["error"]["code"] == code


async def test_a_worker_whose_lease_may_be_over_delivers_nothing_that_it_has_lost(scene: Scene, team: Team):
    async def late(sink: Sink) -> Answer:
        await asyncio.sleep(0.02)
        await sink.send(said("Once"))
        raise AssertionError("sent by a worker that lost its lease")

    _, call_id, _ = await streamed(scene, team)
    short = replace(scene.rt, settings=scene.rt.settings.model_copy(update={"lease_s": 0.02}))
    await run(Calls(short, Streams(late), "late-worker"), call_id)
    await sweeper.Sweep(rt=scene.rt).run()
    assert [entry for entry in await entries(scene, call_id) if isinstance(entry, Chunks)] == []


async def test_redis_refuses_a_worker_that_was_overtaken(scene: Scene, team: Team):
    async def overtaken(sink: Sink) -> Answer:
        later = Chunks(attempt=2, last=1, texts=[b"{}"])
        id_, fields = chunks.written(later)
        await scene.rt.redis.xadd(redis_keys.chunks(call_id), fields, id=id_)
        await sink.send(said("Once"))
        return answer("Once")

    _, call_id, worker = await streamed(scene, team, overtaken)
    await run(worker, call_id)
    assert [(entry.attempt, type(entry)) for entry in await entries(scene, call_id)] == [(2, Chunks)]


async def test_a_wiped_redis_gets_every_chunk_again_under_its_number(scene: Scene, team: Team):
    async def wiped(sink: Sink) -> Answer:
        for word in ("Once", " upon"):
            await sink.send(said(word))
            await until(lambda: entries(scene, call_id), "a chunk is there")
            await scene.rt.redis.delete(redis_keys.chunks(call_id))
        await sink.send(said(" a time"))
        return answer("Once upon a time")

    _, call_id, worker = await streamed(scene, team, wiped)
    await run(worker, call_id)
    found = await texts(scene, call_id)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in found] == ["Once", " upon", " a time"]
    assert (await end_of(scene, call_id)).first == 4
    assert await scene.rt.redis.ttl(redis_keys.chunks(call_id)) > 0


async def test_a_write_whose_answer_was_lost_is_not_made_twice(scene: Scene, team: Team):
    """The chunk is there already, as by a write that timed out after Redis had taken it."""

    async def again(sink: Sink) -> Answer:
        await sink.send(said("Once"))
        found = await until(lambda: entries(scene, call_id), "the first chunk is there")
        relay: Any = sink
        relay.written = 0
        await sink.send(said(" upon"))
        await until(lambda: has(2), "the second chunk is there")
        assert (await entries(scene, call_id))[0] == found[0]
        return answer("Once upon")

    async def has(last: int) -> bool:
        return (await entries(scene, call_id))[-1].last == last  # type: ignore[union-attr]

    _, call_id, worker = await streamed(scene, team, again)
    await run(worker, call_id)
    found = await entries(scene, call_id)
    assert orjson.loads(found[0].texts[0])["choices"][0]["delta"]["content"] == "Once"  # type: ignore[union-attr]
    assert (await end_of(scene, call_id)).state == "completed"


async def test_fast_chunks_share_writes_and_none_is_lost(scene: Scene, team: Team):
    words = [f" {n}" for n in range(500)]

    async def fast(sink: Sink) -> Answer:
        for word in words:
            await sink.send(said(word))
            await asyncio.sleep(0)
        return answer("".join(words))

    _, call_id, worker = await streamed(scene, team, fast)
    await run(worker, call_id)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in await texts(scene, call_id)] == words
    assert len(await entries(scene, call_id)) < 250


async def test_a_call_whose_worker_died_in_mid_stream_is_not_tried_again(scene: Scene, team: Team):
    async def dies(sink: Sink) -> Answer:
        await sink.send(said("Once"))
        await asyncio.Event().wait()
        raise AssertionError

    job_id, call_id, worker = await streamed(scene, team, dies)
    _call, running = await begun(scene, worker, call_id)
    async with scene.later(60) as later:
        assert (await sweeper.Sweep(rt=replace(later, ring=scene.ring)).run())["expired_leases"] >= 1
    shown = await team.read(job_id, str(call_id))
    assert (shown["status"], shown["error"]["code"]) == ("failed", "stream_interrupted")
    assert [attempt.outcome for attempt in await scene.attempts(str(call_id))] == ["unknown"]
    await books_hold(scene)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_stream_that_somebody_keeps_from_beginning_holds_up_no_other(scene: Scene, team: Team):
    _, locked, worker = await streamed(scene, team, saying("Once", "upon"), saying("Once", "upon"))
    _, free, _ = await streamed(scene, await scene.team())
    running = [*await worker.claim([locked]), *await worker.claim([free])]
    async with scene.rt.db.transaction() as tx:
        await tx.exec_driver_sql("select from calls where id = %s for update", (locked,))
        first, second = (asyncio.create_task(worker.run(call)) for call in running)
        async with asyncio.timeout(2.5):
            await second
        assert not first.done()
    await first
    assert [len(await texts(scene, call_id)) for call_id in (locked, free)] == [2, 2]


@pytest.mark.parametrize("reason", ["drained", "cancelled"])
async def test_a_stream_that_is_cut_counts_what_it_said(scene: Scene, team: Team, reason: str):
    job_id, call_id, worker = await streamed(scene, team, goes_on)
    call, running = await begun(scene, worker, call_id)
    worker.stop(call.fence, reason)
    await running

    shown = await team.read(job_id, str(call_id))
    code = {"drained": "stream_interrupted", "cancelled": "cancelled"}[reason]
    assert (shown["error"]["code"], shown["attempt_count"]) == (code, 1)
    [attempt] = await scene.attempts(str(call_id))
    assert (attempt.outcome, attempt.completion_tokens, attempt.usage_source) == ("abandoned", 3, "estimated")
    assert shown["cost_usd"] == attempt.client_cost_nanousd / 1e9 > 0
    await books_hold(scene)


@pytest.mark.parametrize("way", ["call", "job", "failed"])
async def test_who_cancels_a_stream_pays_for_what_he_has_of_it(scene: Scene, way: str):
    """The worker ends it, since it knows what was said; the request waits for that."""
    team = await scene.team(credits=10**9, budget_mode="consumption_usd", credits_per_dollar=1_000_000)
    job_id, call_id, worker = await streamed(scene, team, goes_on)
    async with scene.rt.db.transaction() as tx:
        await tx.exec_driver_sql("update jobs set auto_complete = true where id = %s", (UUID(job_id),))
    scene.worker, scene.live = worker, True
    _call, running = await begun(scene, worker, call_id)
    if way == "call":
        ended = await team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")
    elif way == "job":
        ended = await team.post(f"/jobs/{job_id}/cancel")
    else:
        ended = await team.complete(job_id, "failed")
    assert ended.status_code == 200, ended.text
    await running

    shown, job = await team.read(job_id, str(call_id)), await team.read(job_id)
    assert (shown["status"], shown["usage"]["completion_tokens"]) == ("cancelled", 3)
    assert shown["cost_usd"] == job["costs"]["total_cost_usd"] > 0
    assert job["status"] == {"call": "failed", "job": "cancelled", "failed": "failed"}[way]
    assert job["auto_complete"] is True
    assert -sum(await team.deductions()) == job["credits_charged"] > 0
    await books_hold(scene)


async def test_an_end_that_is_refused_stops_no_stream(scene: Scene, team: Team):
    job_id, call_id, worker = await streamed(scene, team, goes_on)
    async with scene.rt.db.transaction() as tx:
        await tx.exec_driver_sql("update jobs set auto_complete = true where id = %s", (UUID(job_id),))
    scene.worker, scene.live = worker, True
    call, running = await begun(scene, worker, call_id)
    refused = await team.complete(job_id, "failed", metadata={"long": "x" * 11_000})
    assert refused.status_code == 422
    assert ((await team.read(job_id))["auto_complete"], running.done()) == (True, False)
    assert (await team.read(job_id, str(call_id)))["status"] == "in_progress"
    worker.stop(call.fence, "cancelled")
    await running


async def test_a_stream_whose_worker_does_not_answer_is_cancelled_without_it(scene: Scene, team: Team):
    job_id, call_id, worker = await streamed(scene, team, goes_on)
    call, running = await begun(scene, worker, call_id)
    shown = (await team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")).json()
    assert (shown["status"], shown["cost_usd"]) == ("cancelled", 0)
    worker.stop(call.fence, "cancelled")
    await running
    assert (await scene.attempts(str(call_id)))[0].completion_tokens == 3
    await books_hold(scene)


async def test_a_stream_that_is_drained_before_it_began_goes_back(scene: Scene, team: Team):
    asked = asyncio.Event()

    async def waits(sink: Sink) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    _, call_id, worker = await streamed(scene, team, waits, saying("Once"))
    [call] = await worker.claim([call_id])
    running = asyncio.create_task(worker.run(call))
    await asked.wait()
    worker.stop(call.fence, "drained")
    await running
    assert (await scene.row("select state from calls where id = :id", id=call_id)).state == "pending"
    await run(worker, call_id)
    assert (await end_of(scene, call_id)).attempt == 2


async def test_a_report_that_hands_back_a_delivered_call_is_refused(scene: Scene, team: Team):
    """However it came about: two answers would share one stream."""
    _, call_id, worker = await streamed(scene, team, saying("Once", end=broken()))
    [call] = await worker.claim([call_id])
    async with scene.rt.db.transaction() as tx:
        await tx.exec_driver_sql("update attempts set first_chunk_at = app_now() where call_id = %s", (call_id,))
    worker._provider = Streams(saying(end=broken()))
    await worker.run(call)
    assert (await scene.row("select state from calls where id = :id", id=call_id)).state == "in_progress"
    async with scene.later(60) as later:
        await sweeper.Sweep(rt=replace(later, ring=scene.ring)).run()
    assert (await scene.row("select state from calls where id = :id", id=call_id)).state == "failed"
