"""Attempts: one try of a call at one provider, with its own cost and error, recorded also when it came too late."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from shared.db import Tx, hot
from shared.ids import Fence
from shared.sql_terms import IS_RUNNING

RESULT = {
    "outcome": "text",
    "http_status": "int",
    "error_code": "text",
    "error_message": "text",
    "prompt_tokens": "int",
    "completion_tokens": "int",
    "cached_tokens": "int",
    "reasoning_tokens": "int",
    "usage_source": "text",
    "maybe_billed": "boolean",
    "input_nanousd_per_mtok": "bigint",
    "output_nanousd_per_mtok": "bigint",
    "cached_input_nanousd_per_mtok": "bigint",
    "price_source": "text",
    "price_version": "text",
    "provider_cost_nanousd": "bigint",
    "client_cost_nanousd": "bigint",
    "provider_request_id": "text",
    "chunks": "int",
}

# What the sweeper could only guess (unknown, abandoned) gives way to what a late worker knows; never the other way.
CLOSE = f"""
with r as (
    select * from json_to_recordset(%s) as r(
        call_id uuid, number int, swept boolean, {", ".join(f"{name} {kind}" for name, kind in RESULT.items())})
), old as (
    select a.call_id, a.number, a.provider_cost_nanousd as cost from attempts a join r using (call_id, number)
     where a.outcome = 'in_progress' or (not r.swept and a.outcome in ('unknown', 'abandoned'))
     order by a.call_id, a.number for update of a
)
update attempts a set ended_at = app_now(), {", ".join(f"{name} = r.{name}" for name in RESULT)}
  from r join old using (call_id, number) where a.call_id = r.call_id and a.number = r.number
returning a.call_id, a.number, a.provider, a.provider_cost_nanousd - old.cost as more
"""

# Not under an expired lease: the sweeper may be giving such a call to another attempt.
BEGIN_STREAMS = f"""
with held as (
    select c.id, c.attempt from calls c join unnest(%s::uuid[], %s::int[]) as r(id, number)
           on c.id = r.id and c.attempt = r.number
     where {IS_RUNNING} and c.lease_expires_at > app_now() order by c.id for no key update of c
)
update attempts a set first_chunk_at = app_now() from held
 where a.call_id = held.id and a.number = held.attempt returning a.call_id, a.number
"""

ORPHANED = """
select a.call_id, a.number, a.alias, c.job_id, c.estimated_prompt_tokens, c.estimated_output_tokens, a.litellm_model,
       a.input_nanousd_per_mtok, a.output_nanousd_per_mtok, a.cached_input_nanousd_per_mtok
  from attempts a join calls c on c.id = a.call_id
 where a.outcome = 'in_progress' and (c.state <> 'in_progress' or c.attempt <> a.number)
   and coalesce(c.lease_expires_at, c.completed_at) <= app_now() - make_interval(secs => %s)
 order by a.started_at limit %s
"""

OF_CALLS = f"""
select call_id, number, alias, credential_id, provider, litellm_model, started_at, ended_at, {", ".join(RESULT)}
  from attempts where call_id = any(%s) order by call_id, number
"""


@dataclass(frozen=True, kw_only=True)
class Booked:
    """An attempt whose end was written: `more` nano-dollars than were booked before."""

    call_id: UUID
    number: int
    provider: str | None
    more: int

    @property
    def fence(self) -> Fence:
        """The call and the number under which the attempt held it."""
        return self.call_id, self.number


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """An attempt still in progress on record whose call went on without it and whose worker never reported.

    Its model and prices are those it began with.
    """

    call_id: UUID
    number: int
    alias: str
    job_id: UUID
    estimated_prompt_tokens: int
    estimated_output_tokens: int
    litellm_model: str | None
    input_nanousd_per_mtok: int | None
    output_nanousd_per_mtok: int | None
    cached_input_nanousd_per_mtok: int | None


async def close(tx: Tx, rows: Sequence[dict[str, Any]]) -> list[Booked]:
    """Record how attempts ended. Returns those written; a repeat of the same report changes nothing: `more` is 0."""
    if not rows:
        return []
    return [Booked(**row._asdict()) for row in await hot(tx, CLOSE, (orjson.dumps(rows).decode(),))]


async def begin_streams(tx: Tx, fences: Sequence[Fence]) -> set[Fence]:
    """Record that these attempts deliver chunks from now on, so that none of their calls is tried again.

    Returns those that may: the attempt still holds its call under a lease that has not expired.
    """
    rows = await hot(tx, BEGIN_STREAMS, ([id_ for id_, _ in fences], [number for _, number in fences]))
    return {(row.call_id, row.number) for row in rows}


async def orphaned(tx: Tx, *, grace_s: float, limit: int) -> list[Orphan]:
    """Attempts nobody will report any more: their call ended or moved on, `grace_s` past its last lease."""
    return [Orphan(**row._asdict()) for row in await hot(tx, ORPHANED, (grace_s, limit))]


async def of_calls(tx: Tx, call_ids: Iterable[UUID]) -> dict[UUID, list[dict[str, Any]]]:
    """The attempts of calls, in order."""
    found: dict[UUID, list[dict[str, Any]]] = {}
    for row in await hot(tx, OF_CALLS, (list(call_ids),)):
        found.setdefault(row.call_id, []).append(row._asdict())
    return found
