"""Lines of a batch end: numbered as they can be read, counted and charged, the batch moved on with the last one."""

import asyncio
from typing import Any
from uuid import UUID

import orjson
import pytest

from shared import clock, closing, ending, jobs, limits
from shared.attempt_reports import Usage
from shared.closing import Ending
from shared.ending import End
from shared.failures import FAILURES, message
from shared.jobs import Job
from shared.limits import Limits
from shared.messages import Deliver, Ended, Stop, TendBatches
from shared.states import JobStatus
from tests.accepted_batches import Running, numbers, row, running
from tests.api.admin import refusal
from tests.money import claim, close, in_order, used
from tests.scene import HELLO, Scene, Team, answer, refused
from workers import reports
from workers.sweeper import Sweep

HOOK = "http://127.0.0.1:8099/hook"
BAD = refused("provider_bad_request", again="never")
CANCELLED = End(status=JobStatus.CANCELLED)
EXPIRED = End(status=JobStatus.FAILED, reason="deadline_exceeded", code="deadline_exceeded")


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


def tended(scene: Scene) -> list[UUID]:
    """The batches that somebody was asked to tend."""
    return [id_ for message in scene.rung if isinstance(message, TendBatches) for id_ in message.ids]


async def hears(team: Team, *events: str) -> None:
    made = await team.post("/webhooks/register", {"team_id": team.id, "webhook_url": HOOK, "events": list(events)})
    assert made.status_code == 200, made.text


async def cancelled(
    scene: Scene, batch: Running, *, lines: int, seen: list[int] | None = None, end: End = CANCELLED, steps: int = 99
) -> None:
    """Cancel it so many lines at a time; `seen`: takes how many were left before each step. steps: no more of them."""
    looks: list[int] = [] if seen is None else seen

    def is_open(job: Job | None) -> bool:
        if job is None or job.is_final or len(looks) == steps:
            return False
        looks.append(job.unfinished)
        return True

    await ending.end_job(scene.rt, batch.id, end, is_open, lines=lines)


async def test_lines_are_numbered_as_they_end_and_a_try_that_is_repeated_takes_no_number(scene: Scene, team: Team):
    batch = await running(scene, team, 4)
    scene.provider.steps = [refused()]
    await scene.work(batch.lines[2:3])
    assert await numbers(scene, batch) == [None] * 4
    await scene.work(batch.lines[2:3])
    await scene.work(batch.lines[3:])
    await team.post(f"/jobs/{batch.job_id}/calls/{batch.names[0]}/cancel")
    assert await numbers(scene, batch) == [3, None, 1, 2]
    await scene.work(batch.lines[1:2])
    assert await numbers(scene, batch) == [3, 4, 1, 2]
    await in_order(scene, team)


async def test_lines_of_two_batches_and_other_calls_that_close_together_are_numbered_apart(scene: Scene, team: Team):
    one, two = await running(scene, team, 3), await running(scene, team, 2)
    call_id = await team.call((await team.job())["job_id"])
    claimed = [await claim(scene, str(id_)) for id_ in (*one.lines[:2], UUID(call_id), *two.lines)]
    done = [used(scene, call, 250) for call in claimed]
    retried = reports.failed(await claim(scene, one.names[2]), refused(), scene.rt.prices, scene.rt.settings, left_s=60)

    await close(scene, *done, retried, done[0])

    assert await numbers(scene, one) == [1, 2, None]
    assert await numbers(scene, two) == [1, 2]
    assert (await scene.row("select ended_number from calls where id = :id", id=UUID(call_id))).ended_number is None
    await in_order(scene, team)


async def test_a_line_that_is_tried_again_waits_for_the_dispatcher(scene: Scene, team: Team):
    batch = await running(scene, team, 1)
    await scene.rows("update calls set rung_at = app_now() where id = :id returning id", id=batch.lines[0])
    scene.provider.steps = [refused()]
    await scene.work(batch.lines)
    line = await scene.row("select state, rung_at, run_at from calls where id = :id", id=batch.lines[0])
    assert (line.state, line.rung_at) == ("pending", None)
    assert line.run_at is not None


async def test_a_batch_sums_up_the_tokens_of_its_lines_by_class(scene: Scene, team: Team):
    batch = await running(scene, team, 2)
    usage = Usage(prompt_tokens=10, completion_tokens=20, cached_tokens=3, reasoning_tokens=4, source="provider")
    scene.provider.steps = [answer(usage=usage), answer(usage=usage)]
    await scene.work(batch.lines)
    job = await row(scene, batch)
    assert (job.prompt_tokens, job.completion_tokens, job.cached_tokens, job.reasoning_tokens) == (20, 40, 6, 8)
    assert job.total_tokens == 60
    await in_order(scene, team)


@pytest.mark.parametrize(
    ("steps", "status", "reason"),
    [([BAD, answer(), answer()], "completed", None), ([BAD, BAD, BAD], "failed", "all_calls_failed")],
)
async def test_the_last_line_ends_the_job_and_lets_the_batch_be_finished(
    scene: Scene, team: Team, steps, status: str, reason: str | None
):
    batch = await running(scene, team)
    scene.provider.steps = steps
    await scene.work(batch.lines[:2])
    assert ((await row(scene, batch)).batch, tended(scene)) == ("in_progress", [])

    await scene.work(batch.lines[2:])

    job = await row(scene, batch)
    assert (job.status, job.failure_reason, job.batch) == (status, reason, "finalizing")
    assert job.finalizing_at is not None
    assert tended(scene) == [batch.id]
    assert await scene.events(batch.job_id) == ["job.created", "job.started", f"job.{status}"]
    await in_order(scene, team)


async def test_a_batch_of_which_a_line_expired_is_expired_whatever_its_last_line_did(scene: Scene, team: Team):
    batch = await running(scene, team, 2)
    first, last = [await claim(scene, id_) for id_ in batch.names]
    late = refused("deadline_exceeded", again="never")
    await close(scene, reports.failed(first, late, scene.rt.prices, scene.rt.settings, left_s=0))
    await close(scene, used(scene, last, 250))
    job = await row(scene, batch)
    assert (job.status, job.failure_reason, job.batch) == ("failed", "deadline_exceeded", "finalizing")
    assert (job.calls_completed, job.calls_failed, job.calls_expired, job.credits_charged) == (1, 1, 1, 1)
    await in_order(scene, team)


async def test_lines_make_events_only_for_who_wants_those_of_calls(scene: Scene, team: Team):
    await hears(team, "job.*", "batch.*")
    unheard = await running(scene, team, 2)
    await scene.work(unheard.lines[:1])
    await team.post(f"/jobs/{unheard.job_id}/cancel")
    assert await scene.events(unheard.job_id) == ["job.created", "job.started", "job.cancelled"]

    await hears(team, "call.cancelled", "call.completed")
    heard = await running(scene, team, 2)
    await scene.work(heard.lines[:1])
    await team.post(f"/jobs/{heard.job_id}/cancel")
    assert await scene.events(heard.job_id) == [
        "job.created", "job.started", "call.completed", "call.cancelled", "job.cancelled"
    ]  # fmt: skip
    told = await scene.rows(
        "select body::json -> 'data' ->> 'custom_id' as name from events where job_id = :id and type like 'call.%' "
        "order by seq",
        id=heard.id,
    )
    assert [event.name for event in told] == ["request-1", "request-2"]
    await in_order(scene, team)


async def test_a_batch_that_is_cancelled_ends_what_waits_and_what_runs_at_once(scene: Scene, team: Team):
    batch = await running(scene, team, 5)
    await scene.work(batch.lines[:1])
    late = await claim(scene, batch.names[3])
    scene.rung.clear()

    assert (await team.post(f"/jobs/{batch.job_id}/cancel")).status_code == 200

    job = await row(scene, batch)
    assert (job.status, job.calls_completed, job.calls_cancelled, job.batch) == ("cancelled", 1, 4, "cancelling")
    assert job.cancelling_at is not None
    assert await numbers(scene, batch) == [1, 2, 3, 4, 5]
    stopped = [id_ for message in scene.rung if isinstance(message, Stop) for id_ in message.ids]
    assert stopped == [late.id], "nobody runs the others"
    assert [message.ids for message in scene.rung if isinstance(message, Ended)] == [(batch.id,)]
    assert tended(scene) == [batch.id]
    billed = await scene.rows("select maybe_billed from calls where job_id = :id order by position", id=batch.id)
    assert [line.maybe_billed for line in billed] == [False, False, False, True, False]
    await close(scene, used(scene, late, 250))
    assert (await row(scene, batch)).calls_completed == 1, "too late"
    await in_order(scene, team)


async def test_a_batch_of_many_lines_ends_in_several_transactions_that_each_add_up(scene: Scene, team: Team):
    batch = await running(scene, team, 5)
    seen: list[int] = []
    await cancelled(scene, batch, lines=2, seen=seen)
    assert seen == [5, 3, 1]
    assert (await row(scene, batch)).calls_cancelled == 5
    assert await numbers(scene, batch) == [1, 2, 3, 4, 5]
    assert tended(scene) == [batch.id]
    await in_order(scene, team)


async def bodies(scene: Scene, batch: Running) -> list[dict[str, Any]]:
    """What is told of it and of its lines, in the order of the log."""
    found = await scene.rows("select body from events where job_id = :id order by seq", id=batch.id)
    return [orjson.loads(event.body) for event in found]


@pytest.mark.parametrize("end", [CANCELLED, EXPIRED], ids=["cancelled", "expired"])
async def test_each_of_many_lines_that_are_heard_says_what_it_would_say_alone(scene: Scene, team: Team, end: End):
    await hears(team, "*")
    batch = await running(scene, team, 6, metadata={"page": 7})
    scene.provider.steps = [refused()]
    await scene.work(batch.lines[:1])
    await claim(scene, batch.names[1])
    await team.post(f"/jobs/{batch.job_id}/calls/{batch.names[5]}/cancel")
    alone = (await bodies(scene, batch))[-1]["data"]

    await cancelled(scene, batch, lines=2, end=end)

    *_, one, two, three, four, five, _ = log = await bodies(scene, batch)
    assert [event["sequence"] for event in log] == list(range(1, len(log) + 1))
    state = "cancelled" if end is CANCELLED else "failed"
    error = {"code": end.code, "message": message(end.code), "retryable": FAILURES[end.code].retryable}
    for n, event in enumerate((one, two, three, four, five)):
        line = batch.names[n]
        assert event["type"] == f"call.{state}"
        assert event["data"] == {
            **alone,
            "id": line,
            "call_id": line,
            "status": state,
            "custom_id": f"request-{n + 1}",
            "attempt_count": 1 if n < 2 else 0,
            "error": {**error, "maybe_billed": n == 1},
            "result_url": f"/api/jobs/{batch.job_id}/calls/{line}",
        }
    sent = await scene.rows("select event_id from deliveries where job_id = :id", id=batch.id)
    assert sorted(f"evt_{found.event_id.hex}" for found in sent) == sorted(event["id"] for event in log)
    assert await numbers(scene, batch) == [2, 3, 4, 5, 6, 1]
    await in_order(scene, team)


async def test_what_many_lines_say_is_sent_when_the_last_has_ended_or_nobody_goes_on(scene: Scene, team: Team):
    await hears(team, "call.*")
    for stops_after, times in ((3, 1), (1, 1)):
        batch = await running(scene, team, 5)
        scene.rung.clear()
        await cancelled(scene, batch, lines=2, steps=stops_after)
        assert (await row(scene, batch)).calls_cancelled == min(5, 2 * stops_after)
        assert len([message for message in scene.rung if isinstance(message, Deliver) and message.ids]) == times
        assert isinstance(scene.rung[-1], Deliver)


async def test_limits_get_back_the_tokens_of_lines_that_were_rung_in_vain(scene: Scene):
    team = await scene.team(tpm_limit=1000)
    batch = await running(scene, team, 2)
    subject = Limits(team_id=team.id, rpm=None, tpm=1000)
    await limits.take(scene.rt.redis, [subject], requests=[(batch.names[0], 600)])
    await scene.rows("update calls set rung_at = app_now() where id = :id returning id", id=batch.lines[0])
    await team.post(f"/jobs/{batch.job_id}/cancel")
    taken = await limits.take(scene.rt.redis, [subject], requests=[("next", 1000)])
    assert taken.windows[0].remaining == 0


async def test_nobody_adds_calls_to_a_batch_or_completes_it_and_its_metadata_can_be_changed(scene: Scene, team: Team):
    batch = await running(scene, team)
    closed = (409, "Job is a batch: it takes no calls")
    assert refusal(await team.submit(batch.job_id)) == closed
    answered = await team.scene.client.post(
        "/v1/chat/completions",
        json={"model": team.models[0], "messages": HELLO},
        headers={"Authorization": f"Bearer {team.key}", "X-Job-Id": batch.job_id},
    )
    assert (answered.status_code, answered.json()["error"]["message"]) == closed
    streamed = await team.post(f"/jobs/{batch.job_id}/llm-call-stream", {"messages": HELLO})
    assert refusal(streamed) == closed
    assert refusal(await team.complete(batch.job_id)) == (409, "Job is a batch: it ends with its lines")
    patched = await team.send("PATCH", f"/jobs/{batch.job_id}/metadata", {"metadata": {"a": "b"}})
    assert patched.status_code == 200, patched.text
    assert (await row(scene, batch)).calls_total == 3
    assert tended(scene) == []


async def test_a_batch_that_its_client_fails_is_cancelled(scene: Scene, team: Team):
    batch = await running(scene, team)
    await scene.work(batch.lines[:1])
    assert (await team.complete(batch.job_id, "failed", metadata={"why": "enough"})).status_code == 200
    job = await row(scene, batch)
    assert (job.status, job.failure_reason, job.batch, job.calls_cancelled) == ("failed", "client", "cancelling", 2)
    assert (job.credits_charged, job.metadata) == (1, {"why": "enough"})
    await in_order(scene, team)


async def test_the_sweep_moves_on_what_stands_though_its_last_line_or_its_job_has_ended(scene: Scene, team: Team):
    forgotten, open_, running_ = [await running(scene, team, 1) for _ in range(3)]
    for batch in (forgotten, open_):
        await scene.rows("update jobs set auto_complete = false where id = :id returning id", id=batch.id)
        await scene.work(batch.lines)
    assert (await row(scene, open_)).status == "in_progress"
    async with scene.rt.db.hot_transaction() as tx:
        locked = await jobs.lock(tx, [forgotten.id])
        await closing.end_calls(tx, locked, [], now=clock.now(), finishing={forgotten.id: Ending(JobStatus.COMPLETED)})
    sql = "update batches set status = 'in_progress', finalizing_at = null where id = :id returning id"
    await scene.rows(sql, id=forgotten.id)
    scene.rung.clear()

    assert await Sweep(rt=scene.rt).batches_left_behind() >= 2, "beside what other tests left in the same database"

    assert {forgotten.id, open_.id} <= set(tended(scene))
    for batch in (forgotten, open_):
        assert ((await row(scene, batch)).status, (await row(scene, batch)).batch) == ("completed", "finalizing")
    assert (await row(scene, running_)).batch == "in_progress"
    scene.rung.clear()
    await Sweep(rt=scene.rt).batches_left_behind()
    assert tended(scene) == []
    await in_order(scene, team)


async def test_lines_that_close_while_their_batch_is_cancelled_are_each_counted_once(scene: Scene, team: Team):
    batch = await running(scene, team, 24)
    held = [await claim(scene, id_) for id_ in batch.names[::2]]
    closes = [close(scene, used(scene, call, 250)) for call in held]

    await asyncio.gather(*closes[:6], cancelled(scene, batch, lines=4), *closes[6:])

    job = await row(scene, batch)
    assert (job.status, job.batch, job.calls_completed + job.calls_cancelled) == ("cancelled", "cancelling", 24)
    assert sorted(n for n in await numbers(scene, batch) if n) == list(range(1, 25))
    assert job.credits_charged == job.calls_completed
    await in_order(scene, team)


async def test_a_batch_with_more_metadata_than_a_job_may_have_is_ended_all_the_same(scene: Scene, team: Team):
    batch = await running(scene, team, 1)
    much = "update jobs set metadata = jsonb_build_object('key', repeat('x', 11000)) where id = :id returning id"
    await scene.rows(much, id=batch.id)
    assert (await team.post(f"/jobs/{batch.job_id}/cancel")).status_code == 200
    assert (await row(scene, batch)).status == "cancelled"
