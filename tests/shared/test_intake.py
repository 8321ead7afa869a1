"""Accepting: all or nothing of a submission, nobody's fault is another's, never more calls than credits."""

import asyncio
from uuid import UUID

import pytest

from shared import ids, intake
from shared.clock import now
from shared.db import hot
from shared.errors import Conflict, Forbidden, InsufficientCredits, Invalid, NotFound
from shared.intake import Accepted, Submission
from shared.jobs import Job
from shared.messages import RunCalls
from shared.new_calls import NewCall
from shared.queue import joined
from tests.scene import HELLO, Scene, Team, agrees


def new_job(team: Team, **fields) -> Job:
    return Job(id=ids.new(), team_id=team.id, organization_id="org", job_type="test", created_at=now(), **fields)


def new_call(team: Team, job_id: UUID, **fields) -> NewCall:
    given = {
        "id": ids.new(), "job_id": job_id, "team_id": team.id, "model": team.models[0], "candidates": list(team.models),
        "request": '{"messages":[]}', "created_at": now(), "deadline_s": 60,
    }  # fmt: skip
    return NewCall(**{**given, **fields})


def submission(team: Team, *, calls: int = 1, **fields) -> Submission:
    """A new job with calls."""
    job = new_job(team)
    new = [new_call(team, job.id, **fields) for _ in range(calls)]
    return Submission(job_id=job.id, team_id=team.id, new_job=job, calls=new)


async def test_sixty_jobs_at_once_never_take_more_than_forty_credits(scene: Scene):
    team = await scene.team(credits=40)
    jobs = [(await team.job())["job_id"] for _ in range(60)]

    answers = await asyncio.gather(*(team.submit(job_id) for job_id in jobs))

    assert sorted(answer.status_code for answer in answers) == [202] * 40 + [403] * 20
    assert {a.json()["detail"] for a in answers if a.status_code == 403} == {"Insufficient credits"}
    assert await team.credits() == (40, 40, 0)
    stored = await scene.row("select count(*) as n from calls where team_id = :id", id=team.id)
    assert stored.n == 40
    await agrees(scene, team)


async def test_an_account_that_somebody_has_locked_holds_up_no_other_team(scene: Scene):
    team, other = await scene.team(), await scene.team()
    jobs = [(await t.job())["job_id"] for t in (team, team, team, other, other)]
    async with scene.rt.db.hot_transaction() as tx:
        await hot(tx, "select from credit_accounts where team_id = %s for update", (team.id,))
        held = [asyncio.create_task(team.submit(job_id)) for job_id in jobs[:3]]
        async with asyncio.timeout(2.5):
            for job_id in jobs[3:]:
                assert (await other.submit(job_id)).status_code == 202
        assert not any(submitting.done() for submitting in held)
    assert [(await submitting).status_code for submitting in held] == [202] * 3
    await agrees(scene, team)


async def test_sixty_jobs_from_several_processes_never_take_more_than_forty_credits(scene: Scene):
    """Without the group commit of one process: every submission in a transaction of its own."""
    team, gate = await scene.team(credits=40), asyncio.Semaphore(8)

    async def one() -> Accepted | Exception:
        async with gate:
            return (await intake.accept(scene.rt, [submission(team)]))[0]

    results = await asyncio.gather(*(one() for _ in range(60)))
    assert sum(isinstance(result, Accepted) for result in results) == 40
    assert sum(isinstance(result, InsufficientCredits) for result in results) == 20
    await agrees(scene, team)


async def test_one_credit_is_held_for_all_calls_of_a_job(scene: Scene):
    team = await scene.team(credits=1)
    job = await team.job()

    answers = await asyncio.gather(*(team.submit(job["job_id"]) for _ in range(5)))

    assert [answer.status_code for answer in answers] == [202] * 5
    assert (await team.read(job["job_id"]))["credits_held"] == 1
    assert await team.credits() == (1, 1, 0)


async def test_a_refused_submission_leaves_nothing_and_refuses_no_other(scene: Scene):
    team, poor = await scene.team(credits=5), await scene.team(credits=0)
    other = await scene.team()
    final = (await team.job())["job_id"]
    await team.complete(final)
    big = {"text": "x" * 10_240}
    good = submission(team, calls=2)
    group = [
        Submission(job_id=ids.new(), team_id=team.id, calls=()),
        Submission(job_id=UUID(final), team_id=team.id, calls=[new_call(team, UUID(final))]),
        Submission(job_id=UUID((await other.job())["job_id"]), team_id=team.id, calls=()),
        submission(team, call_metadata=big),
        submission(poor),
        good,
    ]

    results = await intake.accept(scene.rt, group)

    assert [type(result) for result in results] == [
        NotFound,
        Conflict,
        Forbidden,
        Invalid,
        InsufficientCredits,
        Accepted,
    ]
    assert await scene.rows("select id from jobs where id = any(:ids)", ids=[group[3].job_id, group[4].job_id]) == []
    assert await scene.events(str(good.job_id)) == ["job.created", "job.started"]
    await agrees(scene, team)


async def test_calls_are_rung_after_the_commit_at_most_eight_in_a_message(scene: Scene):
    team = await scene.team()
    wanted = submission(team, calls=20)
    await intake.accept(scene.rt, [wanted])

    bells = [message.ids for message in joined(scene.rung) if isinstance(message, RunCalls)]
    assert [len(bell) for bell in bells] == [8, 8, 4]
    assert [id_ for bell in bells for id_ in bell] == [call.id for call in wanted.calls]


async def test_beyond_sixty_four_unfinished_calls_the_dispatcher_rings(scene: Scene):
    team = await scene.team()
    await intake.accept(scene.rt, [submission(team, calls=60)])
    second = submission(team, calls=10)
    await intake.accept(scene.rt, [second])

    waiting = await scene.rows("select id from calls where team_id = :id and rung_at is null order by id", id=team.id)
    assert [row.id for row in waiting] == [call.id for call in second.calls][4:]
    assert sum(len(message.ids) for message in scene.rung if isinstance(message, RunCalls)) == 64


async def test_metadata_of_calls_is_merged_into_the_job(scene: Scene):
    team = await scene.team()
    job = await team.job(metadata={"a": 1, "b": 1})
    await team.call(job["job_id"], call_metadata={"b": 2, "c": 3})

    assert (await team.read(job["job_id"]))["metadata"] == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(("size", "fits"), [(10_240, True), (10_241, False)])
def test_metadata_may_have_10240_bytes(size: int, fits: bool):
    value = {"k": "x" * (size - len('{"k":""}'))}
    if fits:
        assert intake.merged_metadata({}, value) == value
        return
    with pytest.raises(Invalid) as refused:
        intake.merged_metadata({}, value)
    assert refused.value.detail == [
        {"loc": ["body", "metadata"], "msg": "metadata exceeds 10240 bytes", "type": "value_error.metadata_too_large"}
    ]


async def test_a_poisoned_submission_does_not_spoil_the_jobs_accepted_beside_it(scene: Scene):
    team = await scene.team()
    good, bad = submission(team), submission(team, estimated_output_tokens=2**40)
    add = scene.app.state.desk.intake.add

    results = await asyncio.gather(add(good, team.id), add(bad, team.id), return_exceptions=True)

    assert isinstance(results[0], Accepted)
    assert isinstance(results[1], Exception)
    assert await scene.events(str(good.job_id)) == ["job.created", "job.started"]
    await agrees(scene, team)


async def test_two_calls_of_one_job_that_together_overflow_its_metadata_do_not_spoil_the_group(scene: Scene):
    team = await scene.team()
    job_id = UUID((await team.job())["job_id"])
    half = [{"call_metadata": {name: "x" * 6000}} for name in "ab"]
    answers = await asyncio.gather(*(team.submit(str(job_id), **fields) for fields in half))

    assert sorted(answer.status_code for answer in answers) == [202, 422]
    shown = await team.read(str(job_id))
    assert shown["counts"]["total"] == 1
    assert len(shown["metadata"]) == 1


async def test_a_calls_deadline_is_never_beyond_its_jobs(scene: Scene):
    team = await scene.team()
    job = await team.job(deadline_s=60)
    call = await team.read(job["job_id"], await team.call(job["job_id"], deadline_s=600))

    assert call["deadline_at"] == job["deadline_at"]


async def test_requests_are_stored_without_what_no_client_may_set(scene: Scene):
    team = await scene.team()
    job = await team.job()
    forbidden = dict.fromkeys(("api_base", "api_key", "base_url", "custom_llm_provider", "mock_response"), "x")
    call_id = await team.call(job["job_id"], temperature=0.7, extra_headers={"a": "b"}, model_list=[], **forbidden)

    stored = await scene.row("select request from call_payloads where call_id = :id", id=UUID(call_id))
    assert stored.request == {"messages": HELLO, "temperature": 0.7}
