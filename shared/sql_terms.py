"""Terms of SQL that statements of several nouns share."""

# Of a limited team, what runs and what is rung: due calls that a worker may claim any moment.
BUSY = """
    (select count(*) from (select 1 from calls c where c.team_id = t.id and c.state = 'in_progress'
                            order by c.batched, c.rung_at limit t.max_parallel_calls) running)
  + (select count(*) from (
     (select 1 from calls c where c.team_id = t.id and c.state = 'pending' and not c.batched and c.rung_at is not null
         and c.run_at <= app_now() order by c.rung_at limit t.max_parallel_calls) union all
     (select 1 from calls c where c.team_id = t.id and c.state = 'pending' and c.batched and c.rung_at is not null
         and c.run_at <= app_now() order by c.rung_at limit t.max_parallel_calls)) rung)
"""

# Of an alias `a`, where it is asked: a provider, or one of its servers where the alias names an address of its own.
SCOPE = "a.provider || coalesce(' ' || a.api_base, '')"
