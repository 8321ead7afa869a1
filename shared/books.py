"""What must be true of the rows at every moment: each check asks for the rows that break it. `waybill doctor` asks all.

`%(teams)s` is a list of team ids, or null for every team.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.db import Tx, hot

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
        select j.id as job_id, j.credits_held from jobs j left join holds h on h.job_id = j.id
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s))
           and j.status in ('pending', 'in_progress') and j.credits_held <> coalesce(h.credits, 0)""",
    "each deduction is what its job was charged": """
        select j.id as job_id, j.status, j.credits_charged, -e.amount as deducted
          from jobs j left join credit_entries e on e.job_id = j.id and e.kind = 'deduction'
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s))
           and coalesce(-e.amount, 0) <> j.credits_charged""",
    "no deduction or refund without its job": """
        select e.id as entry_id, e.job_id, e.kind
          from credit_entries e left join jobs j on j.id = e.job_id and j.team_id = e.team_id
         where (%(teams)s::text[] is null or e.team_id = any(%(teams)s)) and e.job_id is not null and j.id is null""",
    "a job-based job is charged one credit when it completed and none of its calls failed, else none": """
        select j.id as job_id, j.status, j.credits_charged from jobs j
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) and j.budget_mode = 'job_based'
           and j.credits_charged <> case when j.status = 'completed' and j.calls_total > 0
               and (j.charge_failed_calls or (j.calls_completed > 0 and j.calls_failed = 0)) then 1 else 0 end""",
    "a consumption job is charged what its calls came to": """
        select j.id as job_id, j.budget_mode, j.credits_charged, j.credits_lost from jobs j
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s))
           and j.status in ('completed', 'failed', 'cancelled') and j.budget_mode <> 'job_based'
           and j.credits_charged + j.credits_lost <> case j.budget_mode
               when 'consumption_usd' then ceil(j.client_cost_nanousd * j.credits_per_dollar / 1000000000)
               else ceil(j.total_tokens::numeric / j.tokens_per_credit) end""",
    "a budget holds what its unfinished calls may cost": """
        select b.id as budget_id, b.held_nanousd, coalesce(sum(c.estimate_nanousd), 0) as estimates
          from budgets b
          left join virtual_keys k on k.id = b.key_id
          left join calls c on b.id = any(c.budget_ids) and c.state in ('pending', 'in_progress')
         where (%(teams)s::text[] is null or coalesce(b.team_id, k.team_id) = any(%(teams)s))
         group by b.id having b.held_nanousd <> coalesce(sum(c.estimate_nanousd), 0)""",
}

WORK: Mapping[str, str] = {
    "provider cost: attempts sum to the call": """
        select c.id as call_id, c.provider_cost_nanousd, coalesce(sum(a.provider_cost_nanousd), 0) as attempts
          from calls c left join attempts a on a.call_id = c.id
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s)) group by c.id
        having c.provider_cost_nanousd <> coalesce(sum(a.provider_cost_nanousd), 0)""",
    "client cost: the call has that of its result's attempt, else none": """
        select c.id as call_id, c.state, c.client_cost_nanousd, a.client_cost_nanousd as of_attempt from calls c
          left join attempts a on a.call_id = c.id and a.number = c.attempt and a.outcome = 'succeeded'
           and c.state = 'completed'
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and (c.client_cost_nanousd <> coalesce(a.client_cost_nanousd, 0)
                or (c.state = 'completed' and a.call_id is null))""",
    "costs, tokens, estimates and counts: calls sum to the job": """
        select j.id as job_id from jobs j left join calls c on c.job_id = j.id
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) group by j.id
        having (j.provider_cost_nanousd, j.client_cost_nanousd, j.total_tokens, j.estimate_nanousd)
               is distinct from
               (coalesce(sum(c.provider_cost_nanousd), 0), coalesce(sum(c.client_cost_nanousd), 0),
                coalesce(sum(c.total_tokens), 0),
                coalesce(sum(c.estimate_nanousd) filter (where c.state in ('pending', 'in_progress')), 0))
            or (j.calls_total, j.calls_completed, j.calls_failed, j.calls_cancelled) is distinct from
               (count(c.id), count(*) filter (where c.state = 'completed'),
                count(*) filter (where c.state = 'failed'), count(*) filter (where c.state = 'cancelled'))""",
    "attempts are numbered without gaps": """
        select c.id as call_id, c.attempt, count(a.number) as attempts from calls c
          left join attempts a on a.call_id = c.id
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s)) group by c.id
        having count(a.number) <> c.attempt or max(a.number) <> c.attempt or min(a.number) <> 1""",
    "an attempt of unknown end may have been billed": """
        select a.call_id, a.number, a.outcome from attempts a join calls c on c.id = a.call_id
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and (a.outcome in ('unknown', 'abandoned')) <> a.maybe_billed""",
    "a call that runs has a lease": """
        select c.id as call_id from calls c
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and c.state = 'in_progress' and (c.lease_expires_at is null or c.worker is null)""",
    "a call of a final job is final": """
        select c.id as call_id, c.state, j.status from calls c join jobs j on j.id = c.job_id
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and c.state in ('pending', 'in_progress') and j.status in ('completed', 'failed', 'cancelled')""",
}

OUTBOX: Mapping[str, str] = {
    "a call ends in exactly one event": """
        select c.id as call_id, c.state, count(e.id) as events from calls c
          left join events e on e.subject_id = c.id and e.job_id = c.job_id
               and e.type in ('call.completed', 'call.failed', 'call.cancelled')
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s)) group by c.id
        having count(e.id) <> (case when c.state in ('completed', 'failed', 'cancelled') then 1 else 0 end)""",
    "a job ends in exactly one event": """
        select j.id as job_id, j.status, count(e.id) as events from jobs j
          left join events e on e.job_id = j.id and e.type in ('job.completed', 'job.failed', 'job.cancelled')
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) group by j.id
        having count(e.id) <> (case when j.status in ('completed', 'failed', 'cancelled') then 1 else 0 end)""",
    "events of a job are numbered without gaps": """
        select j.id as job_id, j.event_sequence, count(e.id) as events from jobs j
          left join events e on e.job_id = j.id
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) group by j.id
        having count(e.id) <> j.event_sequence or max(e.sequence) <> j.event_sequence or min(e.sequence) <> 1""",
    "an event has a delivery for each endpoint that wants it": """
        select e.id as event_id, e.type, w.id as endpoint_id from events e join webhook_endpoints w using (team_id)
         where (%(teams)s::text[] is null or e.team_id = any(%(teams)s))
           and e.type = any(w.events) and w.status = 'active' and w.created_at < e.created_at
           and not exists (select 1 from deliveries d where d.event_id = e.id and d.endpoint_id = w.id)""",
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
        select team_id, r.completed, c.completed as of_jobs, r.credits, c.credits as credits_of_jobs
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
        select team_id, r.ended, c.ended as of_calls, r.client, c.client as client_of_calls, r.provider,
               c.provider as provider_of_calls
          from rolled r full join counted c using (team_id)
         where (coalesce(r.ended, 0), coalesce(r.client, 0), coalesce(r.provider, 0), coalesce(r.tokens, 0))
            <> (coalesce(c.ended, 0), coalesce(c.client, 0), coalesce(c.provider, 0), coalesce(c.tokens, 0))""",
}

LATE: Mapping[str, str] = {
    "no lease expired long ago": """
        select c.id as call_id, c.worker, c.lease_expires_at from calls c
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and c.state = 'in_progress' and c.lease_expires_at < app_now() - interval '5 minutes'""",
    "no call outlives its deadline": """
        select c.id as call_id, c.state, c.deadline_at from calls c
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and c.state in ('pending', 'in_progress') and c.deadline_at < app_now() - interval '5 minutes'""",
    "no delivery is long overdue": """
        select d.id as delivery_id, d.next_attempt_at from deliveries d
         where (%(teams)s::text[] is null or d.team_id = any(%(teams)s))
           and d.state in ('pending', 'failing') and d.next_attempt_at < app_now() - interval '10 minutes'
           and (d.lease_expires_at is null or d.lease_expires_at < app_now())""",
}
"""These come true by themselves while a timer and workers run; broken, they say that none does."""

CHECKS: Mapping[str, Mapping[str, str]] = {
    "money": MONEY,
    "work": WORK,
    "usage": USAGE,
    "outbox": OUTBOX,
    "progress": LATE,
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check and the rows that break it: how many, and the first few."""

    area: str
    check: str
    broken: int
    rows: list[dict[str, Any]]


async def broken(tx: Tx, area: str, check: str, *, teams: Sequence[str] | None = None) -> Finding | None:
    """The rows that break one check, or None. Run it in a repeatable-read transaction: checks join several tables."""
    found = await hot(tx, CHECKS[area][check], {"teams": None if teams is None else list(teams)})
    if not found:
        return None
    return Finding(area=area, check=check, broken=len(found), rows=[row._asdict() for row in found[:SHOWN]])
