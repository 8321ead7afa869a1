"""Usage rolled up per day: what ended calls, jobs and attempts come to, added in the transaction that ends them."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import NamedTuple
from uuid import UUID

import orjson

from shared.db import Tx, hot

NO_KEY = UUID(int=0)

KEY = {
    "team_id": "text",
    "day": "date",
    "job_type": "text",
    "model": "text",
    "provider": "text",
    "key_id": "uuid",
}

MEASURES = (
    "jobs_completed",
    "jobs_failed",
    "jobs_cancelled",
    "credits_charged",
    "calls_completed",
    "calls_failed",
    "calls_cancelled",
    "prompt_tokens",
    "completion_tokens",
    "client_cost_nanousd",
    "provider_cost_nanousd",
    "latency_sum_ms",
)

ADD = f"""
insert into usage_daily ({", ".join([*KEY, *MEASURES])})
select {", ".join([*KEY, *(f"coalesce({name}, 0)" for name in MEASURES)])}
  from json_to_recordset(%s) as r({", ".join(f"{name} {kind}" for name, kind in KEY.items())},
       {", ".join(f"{name} bigint" for name in MEASURES)})
on conflict ({", ".join(KEY)})
do update set {", ".join(f"{name} = usage_daily.{name} + excluded.{name}" for name in MEASURES)}
"""


class UsageKey(NamedTuple):
    """The key of a row: day is the UTC day on which the job was made; empty words and NO_KEY say none."""

    team_id: str
    day: date
    job_type: str
    model: str
    provider: str
    key_id: UUID


class Measures(Counter[str]):
    """What is to be added to one row."""


def day(at: datetime) -> date:
    """The UTC day of a moment."""
    return at.astimezone(UTC).date()


async def add(tx: Tx, sums: Mapping[UsageKey, Measures]) -> None:
    """Add to the rows, in the order of their keys: the last statement of a transaction, so that rows are held shortly.

    Rows to which nothing is added are left alone.
    """
    rows = [{**key._asdict(), **sums[key]} for key in sorted(sums) if any(sums[key].values())]
    if rows:
        await hot(tx, ADD, (orjson.dumps(rows).decode(),))
