"""A past of jobs that tests make up: rows as ending them would have left them, and the same sums by brute force."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from shared import ids, tables
from tests.scene import Scene

FIRST = datetime(2026, 1, 10, tzinfo=UTC)
DAYS = 4
FINAL = ("completed", "failed", "cancelled")


@dataclass(kw_only=True)
class PastCall:
    """A call, its attempts as (provider, provider cost), the last one first to be asked about."""

    id: UUID
    state: str
    model: str
    purpose: str | None
    attempts: list[tuple[str, int]]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0

    @property
    def provider(self) -> str:
        return self.attempts[-1][0] if self.attempts else ""

    @property
    def provider_cost(self) -> int:
        return sum(cost for _, cost in self.attempts)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(kw_only=True)
class PastJob:
    """A job and its calls."""

    id: UUID
    team_id: str
    job_type: str
    user_id: str | None
    external_task_id: str | None
    status: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    credits_charged: int
    calls: list[PastCall] = field(default_factory=list)

    def count(self, state: str) -> int:
        return sum(call.state == state for call in self.calls)

    @property
    def cost(self) -> int:
        return sum(call.cost for call in self.calls)

    @property
    def tokens(self) -> int:
        return sum(call.tokens for call in self.calls)


def made_up(team_ids: Sequence[str], *, jobs: int, seed: int) -> list[PastJob]:
    """Jobs over four days of January 2026, one a minute before midnight and one at midnight among them."""
    dice = random.Random(seed)
    edges = [FIRST + timedelta(days=2), FIRST + timedelta(days=2, milliseconds=-1)]
    spread = [FIRST + timedelta(milliseconds=dice.randrange(DAYS * 86_400_000)) for _ in range(jobs - 2)]
    return [_job(dice, dice.choice(team_ids), at) for at in [*edges, *spread]]


async def put(scene: Scene, past: Sequence[PastJob], organization_id: str) -> None:
    """Write the rows, and the rollup of what has ended."""
    calls = [(job, call) for job in past for call in job.calls]
    attempts = [(call, n, *tried) for _, call in calls for n, tried in enumerate(call.attempts, start=1)]
    async with scene.rt.db.transaction() as tx:
        await tx.execute(insert(tables.jobs), [_job_row(job, organization_id) for job in past])
        await tx.execute(insert(tables.calls), [_call_row(job, call) for job, call in calls])
        await tx.execute(insert(tables.attempts), [_attempt_row(*attempt) for attempt in attempts])
        await tx.execute(insert(tables.usage_daily), _lines(past))


def sums(past: Iterable[PastJob], key: Callable[[PastJob], str] = lambda _: "all") -> dict[str, Counter[str]]:
    """Every measure of jobs, by what `key` says of them."""
    found: dict[str, Counter[str]] = {}
    for job in past:
        measured = found.setdefault(key(job), Counter())
        measured.update({"jobs": 1, job.status: 1, "credits": job.credits_charged, "cost": job.cost})
        measured.update({"calls": len(job.calls), "tokens": job.tokens})
        for call in job.calls:
            measured.update({f"calls_{call.state}": 1, "provider_cost": call.provider_cost})
    return found


def _job(dice: random.Random, team_id: str, at: datetime) -> PastJob:
    status = dice.choice([*FINAL, *FINAL, "completed", "in_progress", "pending"])
    calls = [] if status == "pending" else [_call(dice, status) for _ in range(dice.randrange(4))]
    ended = at + timedelta(seconds=dice.randrange(1, 90_000)) if status in FINAL else None
    return PastJob(
        id=ids.new(),
        team_id=team_id,
        job_type=dice.choice(["resume", "mail", "report"]),
        user_id=dice.choice([None, "ann", "bob"]),
        external_task_id=dice.choice([None, "task-1", "task-2"]),
        status=status,
        created_at=at,
        started_at=at + timedelta(seconds=dice.randrange(90_000)) if calls else None,
        completed_at=ended,
        credits_charged=dice.randrange(3) if status == "completed" else 0,
        calls=calls,
    )


def _call(dice: random.Random, job_status: str) -> PastCall:
    states = FINAL if job_status in FINAL else (*FINAL, "in_progress", "pending")
    state = dice.choice(states)
    sent = state in ("completed", "in_progress") or (state != "pending" and dice.random() < 0.7)
    tried = [(dice.choice(["openai", "mistral"]), dice.randrange(10**6)) for _ in range(dice.randrange(1, 3))]
    call = PastCall(
        id=ids.new(),
        state=state,
        model=dice.choice(["fast", "good"]),
        purpose=dice.choice([None, "parse", "parse", "rate"]),
        attempts=tried if sent else [],
    )
    if state == "completed":
        call.prompt_tokens, call.completion_tokens = dice.randrange(1, 5000), dice.randrange(5000)
        call.cost = dice.randrange(10**9)
    if state == "in_progress":
        call.attempts[-1] = (call.provider, 0)
    return call


def _job_row(job: PastJob, organization_id: str) -> dict[str, Any]:
    same = (
        "id", "team_id", "job_type", "user_id", "external_task_id", "status", "created_at", "started_at",
        "completed_at", "credits_charged",
    )  # fmt: skip
    return {
        **{name: getattr(job, name) for name in same},
        "organization_id": organization_id,
        "calls_total": len(job.calls),
        "calls_completed": job.count("completed"),
        "calls_failed": job.count("failed"),
        "calls_cancelled": job.count("cancelled"),
        "total_tokens": job.tokens,
        "client_cost_nanousd": job.cost,
        "provider_cost_nanousd": sum(call.provider_cost for call in job.calls),
        "latency_sum_ms": 1000 * job.count("completed"),
        "updated_at": job.completed_at or job.created_at,
    }


def _call_row(job: PastJob, call: PastCall) -> dict[str, Any]:
    done = call.state == "completed"
    return {
        "id": call.id,
        "job_id": job.id,
        "team_id": job.team_id,
        "state": call.state,
        "model": call.model,
        "candidates": [call.model],
        "purpose": call.purpose,
        "attempt": len(call.attempts),
        "created_at": job.created_at,
        "completed_at": job.created_at if call.state in FINAL else None,
        "lease_expires_at": job.created_at + timedelta(days=9999) if call.state == "in_progress" else None,
        "deadline_at": job.created_at + timedelta(days=9999),
        "prompt_tokens": call.prompt_tokens if done else None,
        "completion_tokens": call.completion_tokens if done else None,
        "total_tokens": call.tokens if done else None,
        "client_cost_nanousd": call.cost,
        "provider_cost_nanousd": call.provider_cost,
        "latency_ms": 1000 if done else None,
        "error_code": "provider_error" if call.state == "failed" else None,
    }


def _attempt_row(call: PastCall, number: int, provider: str, cost: int) -> dict[str, Any]:
    runs = call.state == "in_progress" and number == len(call.attempts)
    won = call.state == "completed" and number == len(call.attempts)
    return {
        "call_id": call.id,
        "number": number,
        "alias": call.model,
        "provider": provider,
        "litellm_model": f"{provider}/{call.model}",
        "worker": "w",
        "outcome": "in_progress" if runs else "succeeded" if won else "failed",
        "ended_at": None if runs else FIRST,
        "provider_cost_nanousd": cost,
        "input_nanousd_per_mtok": 10_000,
        "output_nanousd_per_mtok": 30_000,
    }


def _lines(past: Iterable[PastJob]) -> list[dict[str, Any]]:
    lines: dict[tuple[Any, ...], Counter[str]] = {}

    def add(job: PastJob, model: str, provider: str, **measures: int) -> None:
        key = (job.team_id, job.created_at.date(), job.job_type, model, provider)
        lines.setdefault(key, Counter()).update(measures)

    for job in past:
        if job.status in FINAL:
            add(job, "", "", **{f"jobs_{job.status}": 1, "credits_charged": job.credits_charged})
        for call in job.calls:
            for provider, cost in call.attempts:
                add(job, call.model, provider, provider_cost_nanousd=cost)
            if call.state in FINAL:
                add(job, call.model, call.provider, **{f"calls_{call.state}": 1}, **_measures(call))
    names = ("team_id", "day", "job_type", "model", "provider")
    every = {column.name for column in tables.usage_daily.columns if column.server_default is not None}
    counts = every - {"user_id", "model", "provider", "key_id"}
    return [
        {**dict(zip(names, key, strict=True)), **{name: added[name] for name in counts}} for key, added in lines.items()
    ]


def _measures(call: PastCall) -> dict[str, int]:
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "client_cost_nanousd": call.cost,
    }
