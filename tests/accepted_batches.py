"""Batches that were accepted, without the file they came in: rows and holds as accepting leaves them."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from shared import batches, charging, clock, facts, gates, ids, jobs, new_calls, outbox
from shared.batches import NewBatch
from shared.charging import Terms
from shared.jobs import Job
from shared.new_calls import NewCall
from shared.states import Endpoint, JobStatus
from tests.scene import Scene, Team

DAY_S = 86_400
TERMS = "select budget_mode, charge_failed_calls, credits_per_dollar, tokens_per_credit from teams where id = :id"
RUNS = """
update batches set status = 'in_progress', in_progress_at = app_now(), lines = :lines, models = array['m']
 where id = :id returning id
"""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A batch that runs. id: its job's too; lines: its calls, in the order of their numbers in the file."""

    id: UUID
    lines: list[UUID]

    @property
    def job_id(self) -> str:
        return str(self.id)

    @property
    def names(self) -> list[str]:
        """Its lines as a path has them."""
        return [str(line) for line in self.lines]


async def running(scene: Scene, team: Team, count: int = 3, *, window_s: float = DAY_S, **of_line: Any) -> Running:
    """A batch of so many lines; `of_line`: fields of each new call."""
    terms = Terms(**(await scene.row(TERMS, id=team.id))._asdict())
    key = await scene.row("select k.id, t.organization_id from virtual_keys k join teams t on t.id = k.team_id "
                          "where t.id = :id", id=team.id)  # fmt: skip
    job = Job(
        id=ids.new(), team_id=team.id, organization_id=key.organization_id, job_type="batch", is_batch=True,
        auto_complete=True, created_at=clock.now(),
    )  # fmt: skip
    new = [_line(team, job, n, {"key_id": key.id, **of_line}) for n in range(count)]
    async with scene.rt.db.hot_transaction() as tx:
        await jobs.create(tx, [(job, window_s)])
        await batches.create(tx, _batch(job, key.id, window_s))
        await _accept(tx, job, new, terms)
    await scene.rows(RUNS, id=job.id, lines=count)
    return Running(id=job.id, lines=[line.id for line in new])


async def _accept(tx: Any, job: Job, new: list[NewCall], terms: Terms) -> None:
    recorded = [facts.job_created(job, job.created_at)]
    charging.agree(job, terms)
    job.calls_total, job.status, job.started_at = len(new), JobStatus.IN_PROGRESS, job.created_at
    job.estimate_nanousd = sum(line.estimate_nanousd for line in new)
    job.estimate_tokens = sum(line.estimated_tokens for line in new)
    budget_ids = {id_ for line in new for id_ in line.budget_ids or ()}
    passing = await gates.lock(tx, limited_keys=[], budget_ids=budget_ids, team_ids=[job.team_id])
    passing.take(job, new)
    recorded.append(facts.job_started(job, job.created_at))
    recorded.extend(await passing.write(tx, {job.id: job}, now=job.created_at))
    await jobs.save(tx, [job])
    await new_calls.create(tx, new, rung=set(), store_payloads=True)
    await outbox.record(tx, recorded)


def _line(team: Team, job: Job, n: int, fields: dict[str, Any]) -> NewCall:
    given = {
        "id": ids.new(), "job_id": job.id, "team_id": team.id, "model": team.models[0],
        "candidates": list(team.models), "request": '{"messages":[]}', "created_at": job.created_at,
        "deadline_s": 365 * DAY_S, "position": n, "custom_id": f"request-{n + 1}",
    }  # fmt: skip
    return NewCall(**{**given, **fields})


def _batch(job: Job, key_id: UUID, window_s: float) -> NewBatch:
    return NewBatch(
        id=job.id, team_id=job.team_id, key_id=key_id, endpoint=Endpoint.CHAT, input_file_id=ids.new(),
        completion_window="24h", window_s=window_s,
    )  # fmt: skip


async def row(scene: Scene, batch: Running) -> Any:
    """Its job's row, with `batch`: how the batch stands."""
    return await scene.row(
        "select j.*, b.status as batch, b.cancelling_at, b.finalizing_at from jobs j join batches b using (id) "
        "where j.id = :id",
        id=batch.id,
    )


async def numbers(scene: Scene, batch: Running) -> list[int | None]:
    """The number of each line among those that ended."""
    rows = await scene.rows("select ended_number as n from calls where job_id = :id order by position", id=batch.id)
    return [found.n for found in rows]
