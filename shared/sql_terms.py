"""Terms of SQL that statements of several nouns share."""

from shared.event_types import OPT_IN, TEST

# Of a limited team, what runs, as far as it matters.
RUNNING = """
    (select count(*) from (select 1 from calls c where c.team_id = t.id and c.state = 'in_progress'
                            order by c.batched, c.rung_at limit t.max_parallel_calls) running)
"""

# What runs and what is rung: due calls that a worker may claim any moment.
BUSY = f"""
    {RUNNING}
  + (select count(*) from (
     (select 1 from calls c where c.team_id = t.id and c.state = 'pending' and not c.batched and c.rung_at is not null
         and c.run_at <= app_now() order by c.rung_at limit t.max_parallel_calls) union all
     (select 1 from calls c where c.team_id = t.id and c.state = 'pending' and c.batched and c.rung_at is not null
         and c.run_at <= app_now() order by c.rung_at limit t.max_parallel_calls)) rung)
"""

# Of a batch's lines, by its id: how many failed with each code, the most frequent first. Those that expired are counted
# apart. An index alone has it all.
FAILURES = """
    select coalesce(c.error_code, 'internal_error') as code, count(*) as count from calls c
     where c.job_id = {batch_id} and c.state = 'failed' and c.batched
       and c.error_code is distinct from 'deadline_exceeded'
     group by 1 order by 2 desc, 1
"""

# Of a call `c` that is named by its id. Said so, no partial index can stand in for the key: one over all that waits is
# read from end to end by a plan that was made while nothing waited.
IS_PENDING = "(c.state = 'pending') is true"
IS_RUNNING = "(c.state = 'in_progress') is true"

FINAL_BATCH = "('completed', 'failed', 'expired', 'cancelled')"
UNFINISHED_BATCH = "('validating', 'in_progress', 'finalizing', 'cancelling')"

# Of a job `j`. What a batch's many lines would have to be read for is on its own row.
MODELS = """
case when j.is_batch then (select b.models from batches b where b.id = j.id)
     else (select array_agg(distinct c.model) from calls c where c.job_id = j.id) end
"""

# Of a team or an organization: whether it is served now.
ACTIVE = "({0}.status = 'active' or ({0}.status = 'paused' and {0}.paused_until <= app_now()))"

# Of a key `k`. One that has expired is not stopped: it keeps what it brought in time.
IS_STOPPED = "(k.blocked or coalesce(k.revoked_at <= app_now(), false))"

# Of a call `c` of a team `t`: what was accepted starts, but lines wait while their key is stopped, or their team or its
# organization is not served. Of other calls no more is read.
MAY_START = f"""
    (not c.batched
     or {ACTIVE.format("t")}
        and (select {ACTIVE.format("o")} from organizations o where o.id = t.organization_id)
        and (select {IS_STOPPED} from virtual_keys k where k.id = c.key_id) is not true)
"""

# Of an alias `a`, where it is asked: a provider, or one of its servers where the alias names an address of its own.
SCOPE = "a.provider || coalesce(' ' || a.api_base, '')"

# What a subscription may say to mean the type of event in this column, as `event_types.names` has it.
EVENT_NAMES = f"""
case when {{0}} in ({", ".join(repr(type_) for type_ in (*OPT_IN, TEST))}) then array[{{0}}] else
     array[{{0}}, '*', split_part({{0}}, '.', 1) || '.*', regexp_replace({{0}}, '[^.]*$', '*')] end
"""

# Where a delivery `d` goes, of a row with these joins: to an endpoint, or to the callback of a job or a call.
TARGET_URL = "coalesce(w.url, c.callback_url, j.callback_url)"
TARGET_JOINS = """
  left join webhook_endpoints w on w.id = d.endpoint_id
  left join jobs j on d.callback = 'job' and j.id = d.job_id
  left join events e on d.callback = 'call' and e.id = d.event_id
  left join calls c on c.id = e.subject_id
"""

# Queues with something to send, `with recursive`: a loose index scan, one step per queue however long it is.
WAITING_QUEUES = """
waiting(id) as (
    (select queue_id from deliveries where state in ('pending', 'failing') order by queue_id limit 1)
    union all
    select (select d.queue_id from deliveries d
             where d.state in ('pending', 'failing') and d.queue_id > waiting.id order by d.queue_id limit 1)
      from waiting where waiting.id is not null
)
"""

# The lowest id there is of a moment, as `ids.earliest` has it: what was made later sorts after it.
EARLIEST_ID = "(lpad(to_hex((extract(epoch from {0}) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid"
