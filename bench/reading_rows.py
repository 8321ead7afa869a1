"""Rows of a busy year, made by SQL: jobs, calls, attempts, and the rollup that ending them would have left."""

from typing import Any

import psycopg

TEAMS, ORGANIZATIONS, DAYS, OPEN_JOBS = 40, 4, 365, 400
CALLS_PER_JOB = 3

SETTINGS = """
set session_replication_role = replica; set synchronous_commit = off; set work_mem = '256MB';
set maintenance_work_mem = '256MB'; set statement_timeout = 0;
"""
# No trigger fires for these rows: foreign keys are true by construction.

TENANTS = f"""
insert into organizations (id, name, created_at)
  select 'org-' || n, 'Organization ' || n, now() - interval '400 days' from generate_series(0, {ORGANIZATIONS - 1}) n;
insert into teams (id, organization_id, callback_secret_sealed)
  select 'team-' || n, 'org-' || n % {ORGANIZATIONS}, '' from generate_series(0, {TEAMS - 1}) n;
insert into credit_accounts (team_id, allocated) select id, 1000000 from teams;
"""

# One team in five jobs is team-0; the newest jobs are still open, each with one call that runs.
JOBS = f"""
create temp table j as
  select n, uuidv7(at - now()) as id, at, n > %(jobs)s - {OPEN_JOBS} as open,
         'team-' || case when pg_temp.h(n, 1, 5) = 0 then 0 else pg_temp.h(n, 2, {TEAMS}) end as team_id,
         case when pg_temp.h(n, 3, 5) > 0 then 'user-' || pg_temp.h(n, 4, 50) end as user_id,
         (array['resume', 'invoice', 'mail', 'gateway', 'report'])[1 + pg_temp.h(n, 5, 5)] as job_type,
         1 + pg_temp.h(n, 6, {2 * CALLS_PER_JOB - 1}) as calls, pg_temp.h(n, 7, 100) as luck
    from generate_series(1, %(jobs)s) n,
         lateral (select date_trunc('milliseconds', now() - interval '{DAYS} days' * (1 - n::float8 / %(jobs)s)
                                                  - interval '1 minute') as at) t;
create temp table c as
  select n, k, id as job_id, uuidv7(at - now() + k * interval '1 second') as id, team_id, at,
         case when open and k = calls then 'in_progress' when luck < 5 then 'cancelled'
              when luck < 12 or pg_temp.h(n, 10 + k, 50) = 0 then 'failed' else 'completed' end as state,
         'model-' || m as model, (array['openai', 'anthropic', 'mistral'])[1 + m % 3] as provider,
         100 + pg_temp.h(n, 40 + k, 900) as prompt_tokens, 10 + pg_temp.h(n, 50 + k, 500) as completion_tokens
    from j, generate_series(1, calls) k,
         lateral (select (hashtext(team_id) & 3) + pg_temp.h(n, 20 + k, 3) as m) m;
"""

FILL = """
insert into jobs (id, team_id, organization_id, user_id, job_type, external_task_id, status, metadata, calls_total,
       calls_completed, calls_failed, calls_cancelled, total_tokens, client_cost_nanousd, provider_cost_nanousd,
       latency_sum_ms, budget_mode, credits_charged, created_at, started_at, completed_at, updated_at)
  select j.id, j.team_id, t.organization_id, j.user_id, j.job_type, 'task-' || j.n,
         case when open then case when luck < 50 then 'pending' else 'in_progress' end
              when luck < 5 then 'cancelled' when luck < 12 then 'failed' else 'completed' end,
         '{"document_id": "doc_123"}', s.total, s.completed, s.failed, s.cancelled, s.tokens, s.cost * 3 / 2, s.cost,
         s.completed * 1000, 'job_based', case when luck >= 12 and not open then 1 else 0 end,
         at, at + interval '1 second', case when not open then at + interval '20 seconds' end, at
    from j join teams t on t.id = j.team_id join lateral (select * from s where s.n = j.n) s on true order by at;
insert into calls (id, job_id, team_id, state, model, candidates, purpose, attempt, deadline_at, created_at, started_at,
       completed_at, prompt_tokens, completion_tokens, total_tokens, client_cost_nanousd, provider_cost_nanousd,
       latency_ms, lease_expires_at, rung_at)
  select id, job_id, team_id, state, model, array[model], 'step', 1, at + interval '1 hour', at,
         at + interval '1 second', case when state <> 'in_progress' then at + interval '10 seconds' end,
         case when done then prompt_tokens end, case when done then completion_tokens end,
         case when done then prompt_tokens + completion_tokens end,
         case when done then prompt_tokens * 3000 else 0 end, case when done then prompt_tokens * 2000 else 0 end,
         case when done then 1000 end, case when state = 'in_progress' then now() + interval '1 hour' end, at
    from (select c.*, state = 'completed' as done from c) c order by at;
insert into attempts (call_id, number, alias, provider, litellm_model, worker, outcome, started_at, ended_at,
       prompt_tokens, completion_tokens, provider_cost_nanousd, client_cost_nanousd)
  select id, 1, model, provider, provider || '/' || model, 'w',
         case state when 'completed' then 'succeeded' when 'in_progress' then 'in_progress' else 'failed' end, at,
         case when state <> 'in_progress' then at + interval '10 seconds' end, prompt_tokens, completion_tokens,
         case when state = 'completed' then prompt_tokens * 2000 else 0 end,
         case when state = 'completed' then prompt_tokens * 3000 else 0 end from c order by at;
insert into call_payloads (call_id, request, response)
  select id, '{"messages": [{"role": "user", "content": "Hello"}]}', '{"choices": []}' from c order by at;
insert into usage_daily (team_id, day, job_type, model, provider, calls_completed, calls_failed,
       calls_cancelled, prompt_tokens, completion_tokens, client_cost_nanousd, provider_cost_nanousd, latency_sum_ms)
  select team_id, (at at time zone 'UTC')::date as day, job_type, model, provider,
         count(*) filter (where state = 'completed'), count(*) filter (where state = 'failed'),
         count(*) filter (where state = 'cancelled'), coalesce(sum(prompt_tokens) filter (where done), 0),
         coalesce(sum(completion_tokens) filter (where done), 0),
         coalesce(sum(prompt_tokens) filter (where done), 0) * 3000,
         coalesce(sum(prompt_tokens) filter (where done), 0) * 2000, 1000 * count(*) filter (where done)
    from (select c.*, j.job_type, state = 'completed' as done
            from c join j using (n)) c
   where state <> 'in_progress' group by 1, 2, 3, 4, 5 order by 2;
insert into usage_daily (team_id, day, job_type, jobs_completed, jobs_failed, jobs_cancelled, credits_charged)
  select team_id, (created_at at time zone 'UTC')::date as day, job_type,
         count(*) filter (where status = 'completed'), count(*) filter (where status = 'failed'),
         count(*) filter (where status = 'cancelled'), sum(credits_charged)
    from jobs where status in ('completed', 'failed', 'cancelled') group by 1, 2, 3 order by 2;
"""

SUMS = """
create temp table s as
  select n, count(*) as total, count(*) filter (where state = 'completed') as completed,
         count(*) filter (where state = 'failed') as failed, count(*) filter (where state = 'cancelled') as cancelled,
         coalesce(sum(prompt_tokens + completion_tokens) filter (where state = 'completed'), 0) as tokens,
         coalesce(sum(prompt_tokens) filter (where state = 'completed'), 0) * 2000 as cost from c group by n;
alter table s add primary key (n);
"""

HASH = """
create function pg_temp.h(n bigint, salt bigint, below int) returns int language sql immutable
return abs(hashint8extended(n, salt) % below)::int;
"""


def fill(connection: psycopg.Connection[Any], *, calls: int) -> None:
    """Fill an empty migrated database with about so many calls, and analyze it. The connection is used up by it."""
    connection.execute(SETTINGS)
    connection.execute(TENANTS)
    connection.execute(HASH)
    connection.execute(JOBS.replace("%(jobs)s", str(calls // CALLS_PER_JOB)))
    connection.execute(SUMS)
    connection.execute(FILL)
    connection.execute("vacuum (analyze)")
