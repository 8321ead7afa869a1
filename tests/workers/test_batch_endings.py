"""The end of a batch: both files whole, one final state, one event, however often it is begun."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest
from structlog.testing import capture_logs

from shared import files, ids
from shared.db import Database
from shared.file_reading import content
from shared.files import BROUGHT, KEPT_S, NewFile
from shared.messages import Deliver, Ended
from shared.states import FilePurpose
from tests import ended_lines
from tests.ended_lines import begun, leased, more, over
from tests.scene import Scene, Team
from tests.workers.checked_batches import asked, checked
from workers import batch_endings

WORKER = "test-worker"
DAY_S = 86_400


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    return module_database_url


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def end(scene: Scene, id_: UUID) -> Any:
    """A worker's turn at the batch; its row after it."""
    await batch_endings.end(scene.rt, await leased(scene, id_), WORKER)
    return await ended_lines.row(scene, id_)


async def lines(scene: Scene, file_id: UUID) -> list[dict[str, Any]]:
    """The lines of a file that is readable."""
    async with scene.rt.db.hot_statement() as tx:
        size = await files.size(tx, file_id)
    whole = b"".join([data async for data in content(scene.rt.db, file_id, 0, size)])
    return [orjson.loads(line) for line in whole.splitlines()]


async def names(scene: Scene, file_id: UUID) -> list[str]:
    return [line["custom_id"] for line in await lines(scene, file_id)]


async def told(scene: Scene, id_: UUID) -> list[str]:
    """The types of the job's events, which are numbered without gaps as far as the job has counted."""
    rows = await scene.rows("select type, sequence from events where job_id = :id order by seq", id=id_)
    counted = (await scene.row("select event_sequence from jobs where id = :id", id=id_)).event_sequence
    assert [row.sequence for row in rows] == list(range(1, counted + 1))
    return [row.type for row in rows]


async def its_files(scene: Scene, team: Team) -> list[str]:
    """The status of each file of the team that retention has not to remove."""
    found = await scene.rows(
        "select status from files where team_id = :team and expires_at > app_now() order by status", team=team.id
    )
    return [row.status for row in found]


async def test_good_lines_are_in_one_file_and_bad_ones_in_the_other_in_the_order_in_which_they_ended(
    scene: Scene, team: Team
):
    id_ = await begun(scene, team, "good", "bad", "good", "bad")
    await over(scene, id_)
    batch = await end(scene, id_)
    assert (batch.status, batch.worker, batch.lease_expires_at) == ("completed", None, None)
    assert batch.completed_at is not None
    assert await names(scene, batch.output_file_id) == ["line-1", "line-3"]
    assert await names(scene, batch.error_file_id) == ["line-2", "line-4"]
    assert batch.error_summary == [{"code": "provider_rate_limit", "count": 2}]
    assert await told(scene, id_) == ["batch.completed"]


async def test_its_event_says_what_became_of_it(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "bad", "expired")
    await over(scene, id_, "failed", "deadline_exceeded")
    with capture_logs() as logged:
        batch = await end(scene, id_)
    [event] = (await team.get(f"/jobs/{id_}/events")).json()["events"]
    name = ids.batch(id_)
    assert (event["type"], event["job_id"]) == ("batch.expired", str(id_))
    assert event["data"] == {
        "id": name,
        "status": "expired",
        "endpoint": "/v1/chat/completions",
        "request_counts": {"total": 3, "completed": 1, "failed": 1, "cancelled": 0, "expired": 1},
        "output_file_id": ids.file(batch.output_file_id),
        "error_file_id": ids.file(batch.error_file_id),
        "error_summary": [{"code": "provider_rate_limit", "count": 1}],
        "total_cost_usd": 0.000001,
        "credits_charged": 0,
        "metadata": {"for": "reports"},
        "result_url": f"/v1/batches/{name}",
    }
    [found] = [entry for entry in logged if entry["event"] == "batch_ended"]
    assert (found["batch"], found["status"], found["lines"], found["expired"]) == (name, "expired", 3, 1)


@pytest.mark.parametrize(
    ("outcomes", "job", "reason", "as_batch", "status"),
    [
        (["good"], "completed", None, "finalizing", "completed"),
        (["bad", "bad"], "failed", "all_calls_failed", "finalizing", "completed"),
        (["good", "expired"], "failed", "deadline_exceeded", "finalizing", "expired"),
        (["good", "cancelled"], "cancelled", None, "cancelling", "cancelled"),
        (["cancelled"], "failed", "client", "finalizing", "cancelled"),
        (["good"], "completed", None, "cancelling", "cancelled"),
        ([], "cancelled", None, "cancelling", "cancelled"),
    ],
)
async def test_the_end_of_its_job_says_what_it_becomes(
    scene: Scene, team: Team, outcomes: list[str], job: str, reason: str | None, as_batch: str, status: str
):
    id_ = await begun(scene, team, *outcomes)
    await over(scene, id_, job, reason, as_batch=as_batch)
    batch = await end(scene, id_)
    times = {name: getattr(batch, f"{name}_at") for name in ("completed", "expired", "cancelled", "failed")}
    assert [name for name, at in times.items() if at is not None] == [batch.status] == [status]
    assert await told(scene, id_) == [f"batch.{status}"]
    assert await names(scene, batch.output_file_id) == [f"line-{n}" for n, o in enumerate(outcomes, 1) if o == "good"]
    bad = [f"line-{n}" for n, outcome in enumerate(outcomes, 1) if outcome != "good"]
    assert (await names(scene, batch.error_file_id) if bad else batch.error_file_id) == (bad or None)


async def test_its_files_are_the_teams_own_and_kept_as_long_as_was_asked(scene: Scene, team: Team):
    long, short = await begun(scene, team, "good", "bad"), await begun(scene, team, "good", expires_after_s=3600)
    for id_ in (long, short):
        await over(scene, id_)
        await end(scene, id_)
    found = await scene.rows(
        "select filename, purpose, bytes, extract(epoch from expires_at - created_at)::int as kept_s from files"
        " where team_id = :team order by id",
        team=team.id,
    )
    assert [(file.filename, file.purpose, file.kept_s) for file in found] == [
        (f"{ids.batch(long)}_output.jsonl", "batch_output", 30 * DAY_S),
        (f"{ids.batch(long)}_error.jsonl", "batch_output", 30 * DAY_S),
        (f"{ids.batch(short)}_output.jsonl", "batch_output", 3600),
    ]
    assert all(file.bytes > 0 for file in found)


async def test_who_waits_and_who_listens_hear_of_it_after_the_commit(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good")
    sql = "update jobs set callback_url = :url, callback_events = array['batch.completed'] where id = :id returning id"
    await scene.rows(sql, id=id_, url="http://127.0.0.1:9/hook")
    await over(scene, id_)
    await end(scene, id_)
    assert scene.rung[-1] == Ended(ids=(id_,))
    [delivery] = await scene.rows("select event_type, queue_id from deliveries where job_id = :id", id=id_)
    assert (delivery.event_type, scene.rung[-2]) == ("batch.completed", Deliver(ids=(delivery.queue_id,)))


async def test_more_lines_than_a_page_and_long_answers_are_all_written(scene: Scene, team: Team):
    id_ = await begun(scene, team)
    for n in range(4):
        text = f"{n}" * 900_000
        await more(
            scene, id_, "good", response={"choices": [{**ended_lines.SAID["choices"][0], "message": {"content": text}}]}
        )
    await over(scene, id_)
    found = await lines(scene, (await end(scene, id_)).output_file_id)
    said = [line["response"]["body"]["choices"][0]["message"]["content"] for line in found]
    assert said == [f"{n}" * 900_000 for n in range(4)]


async def test_what_is_final_is_not_ended_again(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "bad")
    await over(scene, id_)
    held = await leased(scene, id_)
    first = await end(scene, id_)
    # As if a lease were never given up.
    await scene.rows("update batches set worker = :worker where id = :id returning id", id=id_, worker=WORKER)
    await batch_endings.end(scene.rt, held, WORKER)
    again = await ended_lines.row(scene, id_)
    assert (again.completed_at, again.output_file_id) == (first.completed_at, first.output_file_id)
    assert await told(scene, id_) == ["batch.completed"]
    assert await its_files(scene, team) == ["processed"] * 2


async def test_who_lost_the_lease_ends_nothing_and_leaves_nothing(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "bad")
    await over(scene, id_)
    held = await leased(scene, id_)
    async with scene.later(60) as later:
        await leased(replace(scene, rt=later), id_, "another-worker")
    await batch_endings.end(scene.rt, held, WORKER)
    assert (await ended_lines.row(scene, id_)).status == "finalizing"
    assert (await told(scene, id_), await its_files(scene, team)) == ([], [])


async def test_two_workers_at_once_make_one_end(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "bad", "good")
    await over(scene, id_)
    held = await leased(scene, id_)
    await asyncio.gather(*(batch_endings.end(scene.rt, held, WORKER) for _ in range(3)))
    assert await told(scene, id_) == ["batch.completed"]
    assert await its_files(scene, team) == ["processed"] * 2


async def test_a_batch_whose_job_still_runs_is_left_alone(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good")
    await scene.rows("update batches set status = 'finalizing' where id = :id returning id", id=id_)
    assert (await end(scene, id_)).status == "finalizing"
    assert await its_files(scene, team) == []


async def test_a_cancelled_batch_whose_job_was_left_open_is_cancelled_to_its_end(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good")
    await scene.rows("update batches set status = 'cancelling' where id = :id returning id", id=id_)
    batch = await end(scene, id_)
    job = await scene.row("select status from jobs where id = :id", id=id_)
    assert (batch.status, job.status) == ("cancelled", "cancelled")
    assert await told(scene, id_) == ["job.cancelled", "batch.cancelled"]


class Cut(Exception):
    """What ends a worker in the midst of its work."""


class CutShort(Database):
    """A database whose user is gone before so many blocks were through."""

    left = 0

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cut

    @asynccontextmanager
    async def hot_statement(self):
        self._count()
        async with super().hot_statement() as tx:
            yield tx

    @asynccontextmanager
    async def hot_transaction(self):
        async with super().hot_transaction() as tx:
            yield tx
            self._count()


async def test_wherever_a_worker_dies_the_next_one_ends_the_batch_once(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "bad", "good")
    await over(scene, id_)
    held = await leased(scene, id_)
    db = CutShort(scene.rt.settings.database_url, pool=2, name="waybill-cut")
    steps, is_over = 0, False
    while not is_over:
        db.left = steps
        try:
            await batch_endings.end(replace(scene.rt, db=db), held, WORKER)
            is_over = True
        except Cut:
            steps += 1
            assert (await ended_lines.row(scene, id_)).status == "finalizing"
            assert "processed" not in await its_files(scene, team)
            assert await told(scene, id_) == []
    await db.close()
    assert steps > 5
    batch = await ended_lines.row(scene, id_)
    assert await told(scene, id_) == ["batch.completed"]
    assert await names(scene, batch.output_file_id) == ["line-1", "line-3"]
    assert (await its_files(scene, team)).count("processed") == 2


async def kept_s(scene: Scene, team: Team) -> dict[str, int]:
    """For how long from now each file of the team is kept, by its name."""
    rows = await scene.rows(
        "select filename, round(extract(epoch from expires_at - app_now())) as s from files where team_id = :team",
        team=team.id,
    )
    return {row.filename.rpartition("_")[2]: int(row.s) for row in rows}


@pytest.mark.parametrize(
    ("stores", "said", "named", "kept"),
    [
        (False, None, BROUGHT, {"input.jsonl": 3600, "output.jsonl": 3600, "error.jsonl": 3600}),
        (False, DAY_S, BROUGHT, {"input.jsonl": 3600, "output.jsonl": DAY_S, "error.jsonl": DAY_S}),
        (False, None, "my_own", {"own": KEPT_S, "output.jsonl": 3600, "error.jsonl": 3600}),
        (True, None, BROUGHT, {"input.jsonl": KEPT_S, "output.jsonl": KEPT_S, "error.jsonl": KEPT_S}),
    ],
)
async def test_files_of_a_team_that_stores_no_texts_are_kept_for_an_hour_or_as_its_client_said(
    scene: Scene, stores: bool, said: int | None, named: str, kept: dict[str, int]
):
    team = await scene.team(store_payloads=stores)
    id_ = await begun(scene, team, "good", "bad", expires_after_s=said)
    async with scene.rt.db.hot_transaction() as tx:
        await files.begin(tx, NewFile(id=id_, team_id=team.id, purpose=FilePurpose.BATCH, filename=named))
        await files.finish(tx, id_, 0)
    await over(scene, id_)
    await end(scene, id_)
    found = await kept_s(scene, team)
    assert found == {name: pytest.approx(seconds, abs=60) for name, seconds in kept.items()}


async def test_what_a_refused_batch_of_such_a_team_brought_is_kept_for_an_hour_too(scene: Scene):
    team = await scene.team(store_payloads=False)
    id_ = await asked(scene, team, [b"{"])
    await scene.rows("update files set filename = :name where team_id = :id returning id", name=BROUGHT, id=team.id)
    assert (await checked(scene, id_)).status == "failed"
    assert await kept_s(scene, team) == {"input.jsonl": pytest.approx(3600, abs=60)}
