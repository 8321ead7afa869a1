"""What must be true of the rows at every moment: each check asks for the rows that break it. `waybill doctor` asks all.

`%(teams)s` is a list of team ids, or null for every team.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared import batch_books, outbox_books
from shared.db import Tx, hot
from shared.names import is_name

SHOWN = 5

MONEY: Mapping[str, str] = {
    "an account is the sum of its entries": """
        select a.team_id, a.allocated - a.used as remaining, coalesce(sum(e.amount), 0) as entries
          from credit_accounts a left join credit_entries e using (team_id)
         where (%(teams)s::text[] is null or a.team_id = any(%(teams)s))
         group by a.team_id having a.allocated - a.used <> coalesce(sum(e.amount), 0)""",
    "each entry begins where the one before it ended, the first at 0": """
        with e as (
            select team_id, seq, "before", after, lag(after, 1, 0) over (partition by team_id order by seq) as last
              from credit_entries where (%(teams)s::text[] is null or team_id = any(%(teams)s)))
        select team_id, seq, last, "before" from e where "before" <> last""",
    "what is held is the sum of holds": """
        select a.team_id, a.held, coalesce(sum(h.credits), 0) as holds
          from credit_accounts a left join holds h using (team_id)
         where (%(teams)s::text[] is null or a.team_id = any(%(teams)s))
         group by a.team_id having a.held <> coalesce(sum(h.credits), 0)""",
    "a hold is that of a live job": """
        select h.job_id, h.credits, j.status, j.credits_held from holds h left join jobs j on j.id = h.job_id
         where (%(teams)s::text[] is null or h.team_id = any(%(teams)s))
           and (j.id is null or j.status in ('completed', 'failed', 'cancelled') or j.credits_held <> h.credits)""",
    "what a job holds is in its hold": """
        select j.id as job_id, j.status, j.credits_held, h.credits as hold_credits
          from jobs j left join holds h on h.job_id = j.id
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s))
           and j.status in ('pending', 'in_progress') and j.credits_held <> coalesce(h.credits, 0)""",
    "each deduction is what its job was charged": """
        select j.id as job_id, j.status, j.credits_charged, -e.amount as deducted
          from jobs j left join credit_entries e on e.job_id = j.id and e.kind = 'deduction'
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s))
           and coalesce(-e.amount, 0) <> j.credits_charged""",
    "no deduction or refund without its job": """
        select e.id as entry_id, e.kind, e.team_id, e.job_id, j.team_id as job_team_id
          from credit_entries e left join jobs j on j.id = e.job_id
         where (%(teams)s::text[] is null or e.team_id = any(%(teams)s))
           and e.job_id is not null and j.team_id is distinct from e.team_id""",
    "a job-based job is charged one credit when it completed and none of its calls failed, else none": """
        select j.id as job_id, j.status, j.charge_failed_calls, j.calls_total, j.calls_completed, j.calls_failed,
               j.credits_charged, due.credits_due
          from jobs j cross join lateral (select
               case when j.status = 'completed' and j.calls_total > 0
                     and (j.charge_failed_calls or (j.calls_completed > 0 and j.calls_failed = 0)) then 1 else 0 end
               as credits_due) due
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) and j.budget_mode = 'job_based'
           and not j.is_batch and j.credits_charged <> due.credits_due""",
    "a consumption job is charged what its calls came to": """
        select j.id as job_id, j.budget_mode, j.credits_charged, j.credits_lost, due.credits_due
          from jobs j cross join lateral (select case j.budget_mode
               when 'consumption_usd' then ceil(j.client_cost_nanousd * j.credits_per_dollar / 1000000000)
               else ceil(j.total_tokens::numeric / j.tokens_per_credit) end as credits_due) due
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s))
           and j.status in ('completed', 'failed', 'cancelled') and j.budget_mode <> 'job_based'
           and j.credits_charged + j.credits_lost <> due.credits_due""",
    "a budget holds what its unfinished calls may cost": """
        select b.id as budget_id, b.held_nanousd, coalesce(sum(c.estimate_nanousd), 0) as calls_estimate_nanousd
          from budgets b
          left join virtual_keys k on k.id = b.key_id
          left join calls c on b.id = any(c.budget_ids) and c.state in ('pending', 'in_progress')
         where (%(teams)s::text[] is null or coalesce(b.team_id, k.team_id) = any(%(teams)s))
         group by b.id having b.held_nanousd <> coalesce(sum(c.estimate_nanousd), 0)""",
}

WORK: Mapping[str, str] = {
    "provider cost: attempts sum to the call": """
        select c.id as call_id, c.provider_cost_nanousd,
               coalesce(sum(a.provider_cost_nanousd), 0) as attempts_provider_cost_nanousd
          from calls c left join attempts a on a.call_id = c.id
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s)) group by c.id
        having c.provider_cost_nanousd <> coalesce(sum(a.provider_cost_nanousd), 0)""",
    "client cost: the call has that of its result's attempt, else none": """
        select c.id as call_id, c.state, c.attempt, c.client_cost_nanousd,
               a.client_cost_nanousd as attempt_client_cost_nanousd
          from calls c
          left join attempts a on a.call_id = c.id and a.number = c.attempt
           and (c.state = 'completed' and a.outcome = 'succeeded'
                or c.state in ('failed', 'cancelled') and a.first_chunk_at is not null
                   and c.total_tokens is not null)
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and (c.client_cost_nanousd <> coalesce(a.client_cost_nanousd, 0)
                or (c.state = 'completed' and a.call_id is null))""",
    "costs, tokens, estimates and counts: calls sum to the job": """
        with summed as (
            select j.id, coalesce(sum(c.provider_cost_nanousd), 0) as provider_cost,
                   coalesce(sum(c.client_cost_nanousd), 0) as client_cost, coalesce(sum(c.total_tokens), 0) as tokens,
                   coalesce(sum(c.estimate_nanousd) filter (where c.state in ('pending', 'in_progress')), 0)
                   as estimate,
                   count(c.id) as total, count(*) filter (where c.state = 'completed') as completed,
                   count(*) filter (where c.state = 'failed') as failed,
                   count(*) filter (where c.state = 'cancelled') as cancelled
              from jobs j left join calls c on c.job_id = j.id
             where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) group by j.id
        )
        select j.id as job_id, j.provider_cost_nanousd, s.provider_cost as calls_provider_cost_nanousd,
               j.client_cost_nanousd, s.client_cost as calls_client_cost_nanousd,
               j.total_tokens, s.tokens as calls_total_tokens,
               j.estimate_nanousd, s.estimate as calls_estimate_nanousd,
               j.calls_total, s.total as calls_counted, j.calls_completed, s.completed as calls_counted_completed,
               j.calls_failed, s.failed as calls_counted_failed,
               j.calls_cancelled, s.cancelled as calls_counted_cancelled
          from jobs j join summed s using (id)
         where (j.provider_cost_nanousd, j.client_cost_nanousd, j.total_tokens, j.estimate_nanousd,
                j.calls_total, j.calls_completed, j.calls_failed, j.calls_cancelled)
               is distinct from
               (s.provider_cost, s.client_cost, s.tokens, s.estimate, s.total, s.completed, s.failed, s.cancelled)""",
    "attempts are numbered without gaps": """
        select c.id as call_id, c.attempt, count(a.number) as attempts, min(a.number) as first_number,
               max(a.number) as last_number
          from calls c left join attempts a on a.call_id = c.id
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s)) group by c.id
        having count(a.number) <> c.attempt or max(a.number) <> c.attempt or min(a.number) <> 1""",
    "an attempt of unknown end may have been billed": """
        select a.call_id, a.number, a.outcome, a.maybe_billed from attempts a join calls c on c.id = a.call_id
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and (a.outcome in ('unknown', 'abandoned')) <> a.maybe_billed""",
    "a call that runs has a lease": """
        select c.id as call_id, c.state, c.worker, c.lease_expires_at from calls c
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and c.state = 'in_progress' and (c.lease_expires_at is null or c.worker is null)""",
    "a call of a final job is final": """
        select c.id as call_id, c.state, j.status from calls c join jobs j on j.id = c.job_id
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and c.state in ('pending', 'in_progress') and j.status in ('completed', 'failed', 'cancelled')""",
}

USAGE: Mapping[str, str] = {
    "usage of ended jobs is the sum of the jobs": """
        with rolled as (
            select team_id, sum(jobs_completed) as completed, sum(jobs_failed) as failed,
                   sum(jobs_cancelled) as cancelled, sum(credits_charged) as credits
              from usage_daily where (%(teams)s::text[] is null or team_id = any(%(teams)s)) group by team_id
        ), counted as (
            select team_id, count(*) filter (where status = 'completed') as completed,
                   count(*) filter (where status = 'failed') as failed,
                   count(*) filter (where status = 'cancelled') as cancelled, sum(credits_charged) as credits
              from jobs where (%(teams)s::text[] is null or team_id = any(%(teams)s)) group by team_id
        )
        select team_id, r.completed, c.completed as completed_of_jobs, r.failed, c.failed as failed_of_jobs,
               r.cancelled, c.cancelled as cancelled_of_jobs, r.credits, c.credits as credits_of_jobs
          from rolled r full join counted c using (team_id)
         where (coalesce(r.completed, 0), coalesce(r.failed, 0), coalesce(r.cancelled, 0), coalesce(r.credits, 0))
            <> (coalesce(c.completed, 0), coalesce(c.failed, 0), coalesce(c.cancelled, 0), coalesce(c.credits, 0))""",
    "usage of ended calls is the sum of the calls": """
        with rolled as (
            select team_id, sum(calls_completed + calls_failed + calls_cancelled) as ended,
                   sum(client_cost_nanousd) as client, sum(provider_cost_nanousd) as provider,
                   sum(prompt_tokens + completion_tokens) as tokens
              from usage_daily where (%(teams)s::text[] is null or team_id = any(%(teams)s)) group by team_id
        ), counted as (
            select team_id, count(*) filter (where state in ('completed', 'failed', 'cancelled')) as ended,
                   sum(client_cost_nanousd) as client, sum(provider_cost_nanousd) as provider,
                   sum(total_tokens) as tokens
              from calls where (%(teams)s::text[] is null or team_id = any(%(teams)s)) group by team_id
        )
        select team_id, r.ended, c.ended as ended_of_calls, r.client as client_cost_nanousd,
               c.client as client_cost_of_calls_nanousd, r.provider as provider_cost_nanousd,
               c.provider as provider_cost_of_calls_nanousd, r.tokens, c.tokens as tokens_of_calls
          from rolled r full join counted c using (team_id)
         where (coalesce(r.ended, 0), coalesce(r.client, 0), coalesce(r.provider, 0), coalesce(r.tokens, 0))
            <> (coalesce(c.ended, 0), coalesce(c.client, 0), coalesce(c.provider, 0), coalesce(c.tokens, 0))""",
}

LATE: Mapping[str, str] = {
    "no lease expired long ago": """
        select c.id as call_id, c.worker, c.lease_expires_at, app_now() as now from calls c
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and c.state = 'in_progress' and c.lease_expires_at < app_now() - interval '5 minutes'""",
    "no call outlives its deadline": """
        select c.id as call_id, c.state, c.deadline_at, app_now() as now from calls c
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and c.state in ('pending', 'in_progress') and c.deadline_at < app_now() - interval '5 minutes'""",
    **outbox_books.LATE,
    **batch_books.LATE,
}
"""These come true by themselves while a timer and workers run; broken, they say that none does."""

CHECKS: Mapping[str, Mapping[str, str]] = {
    "money": MONEY,
    "work": WORK,
    "usage": USAGE,
    "outbox": outbox_books.OUTBOX,
    "batches": batch_books.BATCHES,
    "progress": LATE,
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check and the rows that break it: how many, and the first few."""

    area: str
    check: str
    broken: int
    rows: list[dict[str, Any]]


SIZES = """
select (select count(*) from teams where %(teams)s::text[] is null or id = any(%(teams)s)) as teams,
       (select count(*) from jobs where %(teams)s::text[] is null or team_id = any(%(teams)s)) as jobs,
       (select count(*) from calls where %(teams)s::text[] is null or team_id = any(%(teams)s)) as calls,
       (select count(*) from credit_entries where %(teams)s::text[] is null or team_id = any(%(teams)s)) as entries"""


async def sizes(tx: Tx, teams: Sequence[str] | None = None) -> dict[str, int]:
    """How many teams (deleted ones too), jobs, calls and entries there are to check."""
    [found] = await hot(tx, SIZES, {"teams": None if teams is None else list(teams)})
    return dict(found._asdict())


async def unknown_teams(tx: Tx, teams: Sequence[str]) -> list[str]:
    """Those of these ids that no team has or had, in the order given."""
    asked = [team for team in teams if is_name(team)]
    known = {row.id for row in await hot(tx, "select id from teams where id = any(%s)", [asked])}
    return [team for team in teams if team not in known]


async def broken(tx: Tx, area: str, check: str, *, teams: Sequence[str] | None = None) -> Finding | None:
    """The rows that break one check, or None. Run it in a repeatable-read transaction: checks join several tables."""
    found = await hot(tx, CHECKS[area][check], {"teams": None if teams is None else list(teams)})
    if not found:
        return None
    return Finding(area=area, check=check, broken=len(found), rows=[row._asdict() for row in found[:SHOWN]])
