"""Calls: one LLM request and its one answer. Claims are leases, closes are fenced by the attempt number."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import orjson

from shared import detours
from shared.credential_choice import CHOSEN
from shared.db import Tx, hot
from shared.ids import Fence
from shared.pages import known_total
from shared.sql_terms import IS_PENDING, IS_RUNNING, MAY_START

COLUMNS = """
c.id, c.job_id, c.team_id, c.state, c.endpoint, c.stream, c.client_call_id, c.model, c.candidates, c.candidate,
c.purpose, c.metadata, c.call_metadata, c.attempt, c.priority, c.created_at, c.started_at, c.completed_at,
c.batched, c.custom_id, c.ended_number,
c.deadline_at, c.finish_reason, c.prompt_tokens, c.completion_tokens, c.total_tokens, c.cached_tokens,
c.reasoning_tokens, c.usage_source, c.client_cost_nanousd, c.provider_cost_nanousd, c.latency_ms, c.error_code,
c.error_message, c.retry_after_s, c.maybe_billed, c.callback_url, c.position, c.key_id, c.budget_ids,
c.estimate_nanousd, c.estimated_prompt_tokens::bigint + c.estimated_output_tokens as estimated_tokens
"""

# Texts come as one JSON array: in a text[] the driver escapes each of their quotes by itself.
STORE_RESPONSES = """
update call_payloads p set response = r.response::json
  from rows from (unnest(%s::uuid[]), json_array_elements_text(%s::json)) as r(id, response) where p.call_id = r.id
"""

# Claiming writes the attempt's row as well: no attempt runs that is not on record, with the prices its alias has now:
# it may be gone, or name another model, before anybody knows that nobody will report. A call that somebody has locked
# is being ended, or claimed elsewhere: it holds up no other, and where it is not, its bell is rung again.
CLAIMING = f"""
with due as (
    select c.id{{due}} from calls c join teams t on t.id = c.team_id
     where c.id = any(%(ids)s) and {IS_PENDING} and c.run_at <= app_now() and c.deadline_at > app_now()
       and (t.max_parallel_calls is null or t.id = any(%(locked_teams)s))
       and {MAY_START}
     order by c.id for update of c skip locked
), {{aims}}claimed as (
    update calls c
       set state = 'in_progress', attempt = c.attempt + 1, worker = %(worker)s,
           lease_expires_at = app_now() + make_interval(secs => %(lease_s)s),
           started_at = coalesce(c.started_at, app_now()){{moved}}
      from due{{aimed}} where c.id = due.id
    returning c.*
), aimed as (
    select c.id, a.provider, a.litellm_model, coalesce(a.api_base, chosen.api_base) as api_base, a.api_key_sealed,
           chosen.id as credential_id, chosen.api_key_sealed as credential_key_sealed, a.input_nanousd_per_mtok,
           a.output_nanousd_per_mtok, a.cached_input_nanousd_per_mtok, coalesce(a.on_unknown, 'retry') as on_unknown
      from claimed c
      join teams t on t.id = c.team_id
      left join model_aliases a on a.alias = c.candidates[c.candidate + 1]
      {CHOSEN}
), opened as (
    insert into attempts (call_id, number, alias, credential_id, provider, litellm_model, worker,
                          input_nanousd_per_mtok, output_nanousd_per_mtok, cached_input_nanousd_per_mtok)
    select c.id, c.attempt, c.candidates[c.candidate + 1], m.credential_id, m.provider, m.litellm_model, %(worker)s,
           m.input_nanousd_per_mtok, m.output_nanousd_per_mtok, m.cached_input_nanousd_per_mtok
      from claimed c join aimed m on m.id = c.id
)
select c.id, c.job_id, c.team_id, c.attempt as number, c.endpoint, c.stream, c.model, c.retries, c.candidates,
       c.candidate, c.candidate_attempts, c.failures, c.batched,
       c.estimated_prompt_tokens, c.estimated_output_tokens, c.created_at,
       extract(epoch from c.deadline_at - app_now())::float8 as deadline_in_s,
       p.request, c.candidates[c.candidate + 1] as alias,
       coalesce((select j.cost_markup_percentage from jobs j where j.id = c.job_id), t.cost_markup_percentage)
       as markup_percentage,
       t.tpm_limit, t.max_parallel_calls, c.key_id,
       (select k.tpm_limit from virtual_keys k where k.id = c.key_id) as key_tpm_limit,
       m.litellm_model, m.provider, m.api_base, m.api_key_sealed, m.credential_id, m.credential_key_sealed,
       m.input_nanousd_per_mtok, m.output_nanousd_per_mtok, m.cached_input_nanousd_per_mtok, m.on_unknown{{probed}}
  from claimed c
  join aimed m on m.id = c.id
  join call_payloads p on p.call_id = c.id
  join teams t on t.id = c.team_id
"""

CLAIM = CLAIMING.format(due="", aims="", moved="", aimed="", probed="")

# The same while a circuit of some provider is open.
CLAIM_AROUND = CLAIMING.format(
    due=", c.team_id, c.candidates, c.candidate",
    aims=f"{detours.AIMS}, ",
    moved=""", candidate = aims.candidate,
           candidate_attempts = case when aims.candidate = c.candidate then c.candidate_attempts else 0 end""",
    aimed=" join aims on aims.id = due.id",
    probed=", (select p.probed_at from probing p where p.id = c.id) as probed_at",
)

# Returns what is still ours. Of that, what somebody has locked is left to the next renewal: it may be ending, and one
# row that is held for long must not cost all the other leases.
RENEW = f"""
with r as materialized (
    select * from unnest(%(ids)s::uuid[], %(numbers)s::int[]) as r(id, number)
), held as (
    select c.id from calls c join r on c.id = r.id and c.attempt = r.number
     where {IS_RUNNING} order by c.id for no key update of c skip locked
), renewed as (
    update calls c set lease_expires_at = app_now() + make_interval(secs => %(lease_s)s) from held where c.id = held.id
)
select c.id, c.attempt from calls c join r on c.id = r.id and c.attempt = r.number where {IS_RUNNING}
"""

CLOSED = {
    "state": "text",
    "candidate": "int",
    "candidate_attempts": "int",
    "finish_reason": "text",
    "prompt_tokens": "int",
    "completion_tokens": "int",
    "total_tokens": "int",
    "cached_tokens": "int",
    "reasoning_tokens": "int",
    "usage_source": "text",
    "client_cost_nanousd": "bigint",
    "latency_ms": "int",
    "error_code": "text",
    "error_message": "text",
    "retry_after_s": "int",
}

# The fence: only the attempt that holds the call may close it; the sweeper only once its lease has expired, and nobody
# hands back a call of which chunks were delivered. Lines that end are numbered on: who has read up to one has missed
# none, because their batch's job stays locked until all of them can be read. A line that is tried again waits for the
# dispatcher as before.
CLOSE = f"""
with r as (
    select * from json_to_recordset(%s) as r(
        id uuid, number int, provider_cost_nanousd bigint, maybe_billed boolean, retry_in_s double precision,
        failed int, died int, swept boolean, ended_before int,
        {", ".join(f"{name} {kind}" for name, kind in CLOSED.items())})
), held as (
    select c.id, r.number, c.job_id, r.ended_before from calls c join r on c.id = r.id and c.attempt = r.number
     where {IS_RUNNING} and (not r.swept or c.lease_expires_at <= app_now())
       and (r.state <> 'pending' or not c.stream or not exists (
            select from attempts a where a.call_id = c.id and a.number = c.attempt and a.first_chunk_at is not null))
     order by c.id for update of c
), numbered as (
    select id, number, ended_before
           + row_number() over (partition by job_id, ended_before is null order by id) as ended_number from held
)
update calls c
   set {", ".join(f"{name} = r.{name}" for name in CLOSED)},
       provider_cost_nanousd = c.provider_cost_nanousd + r.provider_cost_nanousd,
       maybe_billed = c.maybe_billed or r.maybe_billed, failures = c.failures + r.failed, deaths = c.deaths + r.died,
       completed_at = case when r.state in ('completed', 'failed', 'cancelled') then app_now() end,
       run_at = app_now() + make_interval(secs => coalesce(r.retry_in_s, 0)),
       rung_at = case when not c.batched then app_now() + make_interval(secs => coalesce(r.retry_in_s, 0)) end,
       ended_number = n.ended_number
  from r join numbered n using (id, number) where c.id = r.id
returning {COLUMNS}, null::text as response
"""

ADD_PROVIDER_COST = """
with booked as (
    select id, sum(cost)::bigint as cost, bool_or(maybe_billed) as maybe_billed
      from unnest(%s::uuid[], %s::bigint[], %s::boolean[]) as r(id, cost, maybe_billed) group by id
), late as (
    select c.id, r.cost, r.maybe_billed from calls c join booked r on c.id = r.id order by c.id for no key update of c
)
update calls c
   set provider_cost_nanousd = c.provider_cost_nanousd + late.cost, maybe_billed = c.maybe_billed or late.maybe_billed
  from late where c.id = late.id
returning c.id, c.job_id, c.model, c.key_id
"""

GET = f"""
select {COLUMNS}, p.response::text as response, p.call_id is null as payload_expired,
       case when c.stream then (select a.chunks from attempts a where a.call_id = c.id and a.number = c.attempt)
        end as chunks
  from calls c left join call_payloads p on p.call_id = c.id
 where c.job_id = %s and c.id = %s
"""

MATCHING = """
  from calls c
 where c.job_id = %(job_id)s and (%(states)s::text[] is null or c.state = any(%(states)s))
   and (%(purpose)s::text is null or c.purpose = %(purpose)s)
"""

LIST = f"select {COLUMNS}, null::text as response {MATCHING} order by {{order}}, c.id limit %(limit)s offset %(offset)s"

COUNT = f"select count(*) as total {MATCHING}"

ENDED = """
select id from calls where id = any(%(ids)s) and state in ('completed', 'failed', 'cancelled')
union all select id from jobs where id = any(%(ids)s) and status in ('completed', 'failed', 'cancelled')
"""

ANY_UNFINISHED = "select id from calls where job_id = %s and state in ('pending', 'in_progress') limit 1"


@dataclass(frozen=True, kw_only=True)
class Late:
    """A call on which a cost was booked late: whose usage that is."""

    id: UUID
    job_id: UUID
    model: str
    key_id: UUID | None


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A call this worker holds under a lease, with all it takes to ask the provider. `number` is the fence.

    model: the name the client asked for. retries: tries per candidate after the first; None: the setting.
    api_key_sealed: the alias's own key; credential_key_sealed: that of the credential chosen where it has none.
    markup_percentage: on what the provider is paid, 0 to 1000. on_unknown: what becomes of the call where nobody knows
    how an attempt at this candidate ended.
    probed_at: of a probe that finds out whether an open circuit can be closed, when it was claimed.
    """

    id: UUID
    job_id: UUID
    team_id: str
    number: int
    model: str
    candidates: list[str]
    candidate: int
    candidate_attempts: int
    failures: int
    estimated_prompt_tokens: int
    estimated_output_tokens: int
    created_at: datetime
    deadline_in_s: float
    request: dict[str, Any]
    markup_percentage: Decimal
    alias: str
    litellm_model: str | None
    provider: str | None
    api_base: str | None
    api_key_sealed: bytes | None
    input_nanousd_per_mtok: int | None
    output_nanousd_per_mtok: int | None
    cached_input_nanousd_per_mtok: int | None
    on_unknown: Literal["retry", "fail"]
    endpoint: str = "chat"
    stream: bool = False
    batched: bool = False
    retries: int | None = None
    credential_id: UUID | None = None
    credential_key_sealed: bytes | None = None
    tpm_limit: int | None = None
    max_parallel_calls: int | None = None
    key_id: UUID | None = None
    key_tpm_limit: int | None = None
    probed_at: datetime | None = None

    @property
    def fence(self) -> Fence:
        """The id and the attempt number under which the call is held."""
        return self.id, self.number


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call as it is read. `response` is the stored answer's JSON text, where it was asked for.

    provider: of its last attempt, where it was ended from outside. chunks: delivered, of a stream that completed, where
        that was asked for.
    """

    id: UUID
    job_id: UUID
    team_id: str
    state: str
    endpoint: str
    stream: bool
    client_call_id: str | None
    model: str
    candidates: list[str]
    candidate: int
    purpose: str | None
    metadata: dict[str, Any] | None
    call_metadata: dict[str, Any] | None
    attempt: int
    priority: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    deadline_at: datetime
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    usage_source: str | None
    client_cost_nanousd: int
    provider_cost_nanousd: int
    latency_ms: int | None
    error_code: str | None
    error_message: str | None
    retry_after_s: int | None
    maybe_billed: bool
    callback_url: str | None
    position: int
    key_id: UUID | None
    budget_ids: list[UUID] | None
    estimate_nanousd: int
    estimated_tokens: int
    response: str | None
    provider: str | None = None
    payload_expired: bool = False
    chunks: int | None = None
    batched: bool = False
    custom_id: str | None = None
    ended_number: int | None = None

    @property
    def alias(self) -> str:
        """The alias that is being tried, or that gave the result."""
        return self.candidates[min(self.candidate, len(self.candidates) - 1)]


async def claim(
    tx: Tx,
    call_ids: Iterable[UUID],
    *,
    lease_s: float,
    worker: str,
    locked_teams: Iterable[str] = (),
    around: bool = False,
) -> list[Claimed]:
    """Move due pending calls to in_progress under a lease; those not returned are not ours to run.

    locked_teams: teams with `max_parallel_calls` whose rows this transaction locked to count what runs; calls of
        other teams with that limit are left alone.
    around: a circuit of some provider is open: what would go there goes to its next candidate that may be asked.
    """
    given = {"ids": list(set(call_ids)), "locked_teams": list(locked_teams), "lease_s": lease_s, "worker": worker}
    rows = await hot(tx, CLAIM_AROUND if around else CLAIM, given)
    return [Claimed(**row._asdict()) for row in rows]


async def close(tx: Tx, rows: Sequence[dict[str, Any]]) -> list[Call]:
    """Close attempts' calls under the fence. Returns those that were still ours, as they are now.

    rows: at most one for each call and attempt. `ended_before`, of a line that ends: how many of its locked batch have.
    """
    return [Call(**row._asdict()) for row in await hot(tx, CLOSE, (orjson.dumps(rows).decode(),))]


async def store_responses(tx: Tx, responses: Sequence[tuple[UUID, str]]) -> None:
    """Keep the answers (JSON texts) of calls that completed."""
    if responses:
        texts = orjson.dumps([text for _, text in responses]).decode()
        await hot(tx, STORE_RESPONSES, ([id_ for id_, _ in responses], texts))


async def add_provider_cost(tx: Tx, costs: Sequence[tuple[UUID, int, bool]]) -> list[Late]:
    """Book (call, nano-dollars, maybe_billed) of late or corrected attempts on their calls, whatever their state."""
    if not costs:
        return []
    columns = ([id_ for id_, _, _ in costs], [cost for _, cost, _ in costs], [billed for _, _, billed in costs])
    return [Late(**row._asdict()) for row in await hot(tx, ADD_PROVIDER_COST, columns)]


async def get(tx: Tx, job_id: UUID, call_id: UUID) -> Call | None:
    """A call of a job, with its answer."""
    rows = await hot(tx, GET, (job_id, call_id))
    return Call(**rows[0]._asdict()) if rows else None


async def list_of_job(
    tx: Tx,
    job_id: UUID,
    *,
    states: list[str] | None = None,
    purpose: str | None = None,
    order: str = "c.created_at asc",
    limit: int = 1000,
    offset: int = 0,
) -> tuple[list[Call], int]:
    """A page of a job's calls without their answers, and how many match in all. `order` is ours, never a client's."""
    params = {"job_id": job_id, "states": states, "purpose": purpose, "limit": limit, "offset": offset}
    page = [Call(**row._asdict()) for row in await hot(tx, LIST.format(order=order), params)]
    total = known_total(len(page), limit=limit, offset=offset)
    return page, (await hot(tx, COUNT, params))[0].total if total is None else total


async def ended(tx: Tx, ids: Iterable[UUID]) -> set[UUID]:
    """Which of these calls and jobs are final."""
    return {row.id for row in await hot(tx, ENDED, {"ids": list(ids)})}


async def any_unfinished(tx: Tx, job_id: UUID) -> UUID | None:
    """A call of the job that has not ended, if there is one."""
    rows = await hot(tx, ANY_UNFINISHED, (job_id,))
    return rows[0].id if rows else None
