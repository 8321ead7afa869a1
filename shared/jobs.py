"""Jobs: the customer's unit of work and of billing. A row is locked, changed in memory and saved at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from shared.db import Tx, hot
from shared.sql_terms import MODELS
from shared.states import FINAL, JobStatus

COLUMNS = """
j.id, j.team_id, j.organization_id, j.user_id, j.job_type, j.external_task_id, j.status, j.metadata, j.auto_complete,
j.is_batch, j.priority, j.calls_total, j.calls_completed, j.calls_failed, j.calls_cancelled, j.calls_expired,
j.total_tokens, j.prompt_tokens, j.completion_tokens, j.cached_tokens, j.reasoning_tokens, j.client_cost_nanousd,
j.provider_cost_nanousd, j.latency_sum_ms, j.budget_mode, j.charge_failed_calls, j.credits_per_dollar,
j.tokens_per_credit, j.cost_markup_percentage, j.estimate_nanousd, j.estimate_tokens, j.credits_held,
j.credits_charged, j.credits_lost, j.credits_remaining, j.failure_reason, j.error_message, j.callback_url,
j.callback_events, j.callback_secret_sealed, j.event_sequence, j.deadline_at, j.created_at, j.started_at,
j.completed_at, j.updated_at,
coalesce(j.held_open_until > app_now(), false) as is_held_open
"""

LOCK = f"select {COLUMNS} from jobs j where j.id = any(%s) order by j.id for no key update"

READ = f"select {COLUMNS} from jobs j where j.id = %s"

GET = f"""
select {COLUMNS}, (select count(*) from calls c where c.job_id = j.id and c.state = 'in_progress') as in_progress,
       {MODELS} as models
  from jobs j where j.id = %s
"""

MUTABLE = {
    "status": "text",
    "metadata": "jsonb",
    "calls_total": "int",
    "calls_completed": "int",
    "calls_failed": "int",
    "calls_cancelled": "int",
    "calls_expired": "int",
    "total_tokens": "bigint",
    "prompt_tokens": "bigint",
    "completion_tokens": "bigint",
    "cached_tokens": "bigint",
    "reasoning_tokens": "bigint",
    "client_cost_nanousd": "bigint",
    "provider_cost_nanousd": "bigint",
    "latency_sum_ms": "bigint",
    "budget_mode": "text",
    "charge_failed_calls": "boolean",
    "credits_per_dollar": "numeric",
    "tokens_per_credit": "bigint",
    "cost_markup_percentage": "numeric",
    "estimate_nanousd": "bigint",
    "estimate_tokens": "bigint",
    "credits_held": "bigint",
    "credits_charged": "bigint",
    "credits_lost": "bigint",
    "credits_remaining": "bigint",
    "failure_reason": "text",
    "error_message": "text",
    "event_sequence": "int",
    "started_at": "timestamptz",
    "completed_at": "timestamptz",
}

SAVE = f"""
update jobs j set updated_at = app_now(), {", ".join(f"{name} = r.{name}" for name in MUTABLE)}
  from json_to_recordset(%s) as r(id uuid, {", ".join(f"{name} {kind}" for name, kind in MUTABLE.items())})
 where j.id = r.id
"""

GIVEN = {
    "id": "uuid",
    "team_id": "text",
    "organization_id": "text",
    "user_id": "text",
    "job_type": "text",
    "external_task_id": "text",
    "auto_complete": "boolean",
    "is_batch": "boolean",
    "priority": "int",
    "callback_url": "text",
    "callback_events": "text[]",
    "created_at": "timestamptz",
}

CREATE = f"""
insert into jobs ({", ".join([*GIVEN, *MUTABLE])}, callback_secret_sealed, deadline_at)
select {", ".join(f"r.{name}" for name in [*GIVEN, *MUTABLE])}, decode(r.callback_secret_hex, 'hex'),
       app_now() + make_interval(secs => r.deadline_s)
  from json_to_recordset(%s) as r(
       {", ".join(f"{name} {kind}" for name, kind in {**GIVEN, **MUTABLE}.items())},
       callback_secret_hex text, deadline_s double precision)
"""

OVERDUE = """
select id, updated_at from jobs
 where status in ('pending', 'in_progress') and deadline_at <= app_now() order by deadline_at limit %s
"""

HELD_TOO_LONG = "select id from jobs where held_open_until <= app_now() order by held_open_until limit %s"

# A batch has no call while it is checked; it always has a deadline.
IDLE = """
select j.id, j.updated_at from jobs j
 where j.status in ('pending', 'in_progress') and not j.is_batch
   and j.updated_at <= app_now() - make_interval(secs => %s)
   and j.calls_completed + j.calls_failed + j.calls_cancelled = j.calls_total
 order by j.updated_at limit %s
"""


@dataclass(kw_only=True)
class Job:
    """A job's row. Changed only while it is locked, then saved.

    is_held_open: for a moment, the end of its last call does not end it, though it is to complete by itself.
    is_batch: it has a row in batches too, and its calls are lines. calls_expired: of the failed ones, by its deadline.
    estimate_nanousd, estimate_tokens: what its unfinished calls may come to; credits_lost: owed, but the team had none.
    """

    id: UUID
    team_id: str
    organization_id: str
    job_type: str
    user_id: str | None = None
    external_task_id: str | None = None
    status: str = JobStatus.PENDING
    metadata: dict[str, Any] = field(default_factory=dict)
    auto_complete: bool = False
    is_batch: bool = False
    priority: int = 0
    calls_total: int = 0
    calls_completed: int = 0
    calls_failed: int = 0
    calls_cancelled: int = 0
    calls_expired: int = 0
    total_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    client_cost_nanousd: int = 0
    provider_cost_nanousd: int = 0
    latency_sum_ms: int = 0
    budget_mode: str | None = None
    charge_failed_calls: bool = False
    credits_per_dollar: Decimal | None = None
    tokens_per_credit: int | None = None
    cost_markup_percentage: Decimal | None = None
    estimate_nanousd: int = 0
    estimate_tokens: int = 0
    credits_held: int = 0
    credits_charged: int = 0
    credits_lost: int = 0
    credits_remaining: int | None = None
    failure_reason: str | None = None
    error_message: str | None = None
    callback_url: str | None = None
    callback_events: list[str] = field(default_factory=list)
    callback_secret_sealed: bytes | None = None
    event_sequence: int = 0
    deadline_at: datetime | None = None
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    updated_at: datetime | None = None
    is_held_open: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the job ended; final states are never left."""
        return self.status in FINAL

    @property
    def ended(self) -> int:
        """Calls that have ended, whichever way."""
        return self.calls_completed + self.calls_failed + self.calls_cancelled

    @property
    def unfinished(self) -> int:
        """Calls that have not ended."""
        return self.calls_total - self.ended

    def next_sequence(self) -> int:
        """The number of this job's next event; the row lock keeps it without gaps."""
        self.event_sequence += 1
        return self.event_sequence


@dataclass(kw_only=True)
class JobView(Job):
    """A job as one statement read it, so that its counts add up."""

    in_progress: int = 0
    models: list[str] | None = None


async def create(tx: Tx, new: Sequence[tuple[Job, float | None]]) -> None:
    """Insert jobs; the second of each pair is the deadline in seconds from now, or None."""
    if new:
        rows = [{**_row(job, [*GIVEN, *MUTABLE]), **_secret(job), "deadline_s": deadline_s} for job, deadline_s in new]
        await hot(tx, CREATE, (orjson.dumps(rows, default=str).decode(),))


async def lock(tx: Tx, job_ids: Iterable[UUID]) -> dict[UUID, Job]:
    """Lock jobs in id order, before anything of theirs (calls, account) is locked. Unknown ids are left out."""
    wanted = list(set(job_ids))
    return {row.id: Job(**row._asdict()) for row in await hot(tx, LOCK, (wanted,))} if wanted else {}


async def save(tx: Tx, changed: Iterable[Job]) -> None:
    """Write what may change of locked jobs."""
    rows = [_row(job, ["id", *MUTABLE]) for job in changed]
    if rows:
        await hot(tx, SAVE, (orjson.dumps(rows, default=str).decode(),))


async def hold_open(tx: Tx, job_id: UUID, seconds: float) -> None:
    """For so long the end of its last call does not end the job; whoever dies meanwhile leaves it to the sweep."""
    await hot(
        tx, "update jobs set held_open_until = app_now() + make_interval(secs => %s) where id = %s", (seconds, job_id)
    )


async def let_go(tx: Tx, job_id: UUID) -> None:
    """The end of its last call ends it again."""
    await hot(tx, "update jobs set held_open_until = null where id = %s", (job_id,))


async def held_too_long(tx: Tx, *, limit: int) -> list[UUID]:
    """Jobs that were held open until a time that has passed."""
    return [row.id for row in await hot(tx, HELD_TOO_LONG, (limit,))]


async def read(tx: Tx, job_id: UUID) -> Job | None:
    """A job's row by itself, however many calls it has."""
    rows = await hot(tx, READ, (job_id,))
    return Job(**rows[0]._asdict()) if rows else None


async def get(tx: Tx, job_id: UUID) -> JobView | None:
    """A job with its running calls counted in the same statement."""
    rows = await hot(tx, GET, (job_id,))
    return JobView(**rows[0]._asdict()) if rows else None


async def overdue(tx: Tx, *, limit: int) -> list[tuple[UUID, datetime]]:
    """Open jobs whose deadline passed, each with when it last changed."""
    return [(row.id, row.updated_at) for row in await hot(tx, OVERDUE, (limit,))]


async def idle(tx: Tx, idle_s: float, *, limit: int) -> list[tuple[UUID, datetime]]:
    """Open jobs without an unfinished call that nobody touched for `idle_s` seconds, each with when it last changed."""
    return [(row.id, row.updated_at) for row in await hot(tx, IDLE, (idle_s, limit))]


def _row(job: Job, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(job, name) for name in names}


def _secret(job: Job) -> dict[str, str | None]:
    sealed = job.callback_secret_sealed
    return {"callback_secret_hex": None if sealed is None else sealed.hex()}
