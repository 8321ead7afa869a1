"""Lists of jobs: pages in any order, their true totals, and the wider rows that admins read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from shared.db import Tx, hot
from shared.pages import known_total
from shared.sql_terms import MODELS

SortBy = Literal["created_at", "started_at", "completed_at", "status", "job_type"]
Order = Literal["asc", "desc"]

COUNT = "select count(*) as total from jobs j where {where}"

# The page's ids come from an index alone, however deep the offset; only the jobs shown are read, each with its calls.
PAGE = """
with page as materialized (
    select j.id from jobs j where {where} order by {order} limit %(limit)s offset %(offset)s
)
select j.*, c.*, d.state as callback_state, d.last_status as callback_status
  from page join jobs j using (id)
  cross join lateral ({calls}) c
  left join lateral (select state, last_status from deliveries
                      where job_id = j.id and callback = 'job' and j.callback_url is not null
                      order by created_at desc, id desc limit 1) d on true
 order by {order}
"""

# What a batch's many lines would have to be read for is on its own row, or always nothing: lines have no purpose.
RUNNING = f"""
select (select count(*) from calls where job_id = j.id and state = 'in_progress') as in_progress,
       {MODELS} as models
"""

RETRIED = """
select case when j.is_batch then 0
            else (select count(purpose) - count(distinct purpose) from calls where job_id = j.id) end as retry_count
"""

PLAIN = "select"

OF_TEAM = f"select j.*, c.* from jobs j cross join lateral ({RETRIED}) c where j.id = %s and j.team_id = %s"

MOST_TEXT_BYTES = 8 << 20
"""Of prompts and answers in a page of calls; those of a single call may be longer."""

# As above: of the calls before the page only the index is read. Texts are measured where they lie, one after the other.
CALLS = f"""
with page as materialized (
    select id from calls where job_id = %s order by id limit %s offset %s
), texts as (
    select page.id, p.request, p.response, row_number() over (order by page.id) as place,
           sum(coalesce(octet_length(p.request::text), 0) + coalesce(octet_length(p.response::text), 0))
               over (order by page.id) as text_bytes
      from page left join call_payloads p on p.call_id = page.id
)
select c.id, c.state, c.model, c.purpose, c.custom_id, c.prompt_tokens, c.completion_tokens, c.cached_tokens,
       c.total_tokens, c.client_cost_nanousd, c.provider_cost_nanousd, c.latency_ms, c.created_at, c.error_code,
       c.error_message, c.maybe_billed, a.litellm_model, a.provider, a.input_nanousd_per_mtok,
       a.output_nanousd_per_mtok, a.cached_input_nanousd_per_mtok, t.request, t.response
  from texts t join calls c using (id)
  left join attempts a on a.call_id = c.id and a.number = c.attempt
 where t.text_bytes <= {MOST_TEXT_BYTES} or t.place = 1
 order by c.id
"""

FILTERS = {
    "team_id": "j.team_id = %(team_id)s",
    "teams": "j.team_id = any(%(teams)s)",
    "statuses": "j.status = any(%(statuses)s)",
    "job_type": "j.job_type = %(job_type)s",
    "user_id": "j.user_id = %(user_id)s",
    "external_task_id": "j.external_task_id = %(external_task_id)s",
    "since": "j.created_at >= %(since)s",
    "before": "j.created_at < %(before)s",
    "id_part": "strpos(j.id::text, %(id_part)s) > 0",
}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which jobs; None is no condition. teams: any of these. id_part: a part of the id's text, in lower case."""

    team_id: str | None = None
    teams: Sequence[str] | None = None
    statuses: Sequence[str] | None = None
    job_type: str | None = None
    user_id: str | None = None
    external_task_id: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    id_part: str | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part of the list, and in which order."""

    limit: int
    offset: int = 0
    sort_by: SortBy = "created_at"
    order: Order = "desc"


async def page(tx: Tx, wanted: Filter, part: Part) -> list[Any]:
    """Rows of jobs with `in_progress`, `models`, `callback_state` and `callback_status`."""
    return await hot(tx, *page_statement(wanted, part, RUNNING))


async def summaries(tx: Tx, wanted: Filter, part: Part) -> list[Any]:
    """Rows of jobs with `retry_count`: the calls beyond the first of each purpose."""
    return await hot(tx, *page_statement(wanted, part, RETRIED))


async def plain(tx: Tx, wanted: Filter, part: Part) -> list[Any]:
    """Rows of jobs, without a look at their calls."""
    return await hot(tx, *page_statement(wanted, part, PLAIN))


async def summary(tx: Tx, team_id: str, job_id: UUID) -> Any | None:
    """One job of this team with its `retry_count`, or None."""
    rows = await hot(tx, OF_TEAM, (job_id, team_id))
    return rows[0] if rows else None


async def calls_of(tx: Tx, job_id: UUID, *, limit: int, offset: int) -> list[Any]:
    """A page of a job's calls, oldest first: their texts while those are kept, model and prices of the last attempt.

    Fewer than `limit` where their texts are long.
    """
    return await hot(tx, CALLS, (job_id, limit, offset))


async def count(tx: Tx, wanted: Filter, part: Part, shown: int) -> int:
    """How many there are in all; `shown` of them are in this part. A last page that is not full knows it already."""
    total = known_total(shown, limit=part.limit, offset=part.offset)
    return (await hot(tx, *count_statement(wanted)))[0].total if total is None else total


def page_statement(wanted: Filter, part: Part, calls: str) -> tuple[str, dict[str, Any]]:
    """What a page asks the database, with its parameters."""
    where, params = _where(wanted)
    nulls = " nulls last" if part.sort_by in ("started_at", "completed_at") and part.order == "desc" else ""
    order = f"j.{part.sort_by} {part.order}{nulls}, j.id {part.order}"
    sql = PAGE.format(where=where, order=order, calls=calls)
    return sql, {**params, "limit": part.limit, "offset": part.offset}


def count_statement(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """What a total asks the database, with its parameters."""
    where, params = _where(wanted)
    return COUNT.format(where=where), params


def _where(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """Only conditions that there are: a plan can then use an index for them."""
    given = {name: value for name, value in vars(wanted).items() if value is not None}
    return " and ".join(FILTERS[name] for name in given) or "true", given
