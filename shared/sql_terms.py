"""Terms of SQL that statements of several nouns share."""

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

# Of an alias `a`, where it is asked: a provider, or one of its servers where the alias names an address of its own.
SCOPE = "a.provider || coalesce(' ' || a.api_base, '')"
