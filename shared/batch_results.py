"""The ended lines of a batch, in the order in which they ended, and what they come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.db import Tx, hot
from shared.sql_terms import FAILURES, FINAL_BATCH

PAGE = 250
"""Lines that are read at a time, at most."""
PAGE_BYTES = 4 << 20
"""Of stored answers in one page, as they lie packed; one answer may be bigger."""

# The numbers have no gaps: a range of them is as many lines, and needs no sorting of all that come after. The sum sees
# sizes only: an answer that does not fit is not unpacked. The provider is told of failures alone.
READ_PAGE = """
select l.id, l.custom_id, l.ended_number, l.state, l.endpoint, l.model, l.created_at, l.finish_reason, l.prompt_tokens,
       l.completion_tokens, l.total_tokens, l.cached_tokens, l.reasoning_tokens, l.client_cost_nanousd, l.error_code,
       l.error_message, l.response::text as response,
       case when l.endpoint = 'embedding' then coalesce(l.request ->> 'encoding_format' = 'base64', false) else false
        end as as_base64,
       case when l.state = 'failed' then
           (select a.provider from attempts a where a.call_id = l.id and a.number = l.attempt) end as provider
  from (select c.*, p.request, p.response,
               sum(coalesce(pg_column_size(p.response), 0)) over (order by c.ended_number) as packed_sum,
               row_number() over (order by c.ended_number) as place
          from calls c left join call_payloads p on p.call_id = c.id
         where c.job_id = %(batch_id)s
           and c.ended_number > %(after)s::int and c.ended_number <= %(after)s::int + %(limit)s) l
 where l.packed_sum <= %(most_bytes)s or l.place = 1
 order by l.ended_number
"""

ERROR_SUMMARY = FAILURES.format(batch_id="%s")

PROGRESS = f"""
select j.id, b.status in {FINAL_BATCH} as is_over, j.calls_total as lines,
       j.calls_completed + j.calls_failed + j.calls_cancelled as ended
  from jobs j join batches b using (id) where j.id = any(%s)
"""


@dataclass(frozen=True, kw_only=True)
class EndedLine:
    """A line that ended. ended_number: its place among them, from 1, without gaps.

    response: the stored answer's JSON text; None where there is none, or where it is erased. as_base64: how the vectors
    of an embedding are wanted. provider: of the last attempt of a line that failed.
    """

    id: UUID
    custom_id: str
    ended_number: int
    state: str
    endpoint: str
    model: str
    created_at: datetime
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    client_cost_nanousd: int
    error_code: str | None
    error_message: str | None
    response: str | None
    as_base64: bool = False
    provider: str | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How many of its lines have ended, and whether a batch is final: then its files can be read as well."""

    lines: int
    ended: int
    is_over: bool


async def page(
    tx: Tx, batch_id: UUID, after: int, *, limit: int = PAGE, most_bytes: int = PAGE_BYTES
) -> list[EndedLine]:
    """The lines that ended next after that number; fewer than `limit` where their answers are big."""
    given = {"batch_id": batch_id, "after": after, "limit": limit, "most_bytes": most_bytes}
    return [EndedLine(**row._asdict()) for row in await hot(tx, READ_PAGE, given)]


async def error_summary(tx: Tx, batch_id: UUID) -> list[dict[str, Any]]:
    """How many lines failed with each code, the most frequent first: [{code, count}]; expired lines are not among them.

    A look at an index alone, however many lines there are.
    """
    return [row._asdict() for row in await hot(tx, ERROR_SUMMARY, (batch_id,))]


async def progress(tx: Tx, batch_ids: Sequence[UUID]) -> dict[UUID, Progress]:
    """How far these batches are; one that was never accepted, or only checked, is left out."""
    rows = await hot(tx, PROGRESS, (list(batch_ids),))
    return {row.id: Progress(lines=row.lines, ended=row.ended, is_over=row.is_over) for row in rows}
