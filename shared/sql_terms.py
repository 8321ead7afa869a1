"""Terms of SQL that statements of several nouns share."""

# Of a limited team, what runs and what is rung: due calls that a worker may claim any moment.
BUSY = """
    (select count(*) from (select 1 from calls c where c.team_id = t.id and c.state = 'in_progress'
                            limit t.max_parallel_calls) running)
  + (select count(*) from (select 1 from calls c where c.team_id = t.id and c.state = 'pending'
                              and c.rung_at is not null and c.run_at <= app_now() limit t.max_parallel_calls) rung)
"""

# Of an alias `a`, where it is asked: a provider, or one of its servers where the alias names an address of its own.
SCOPE = "a.provider || coalesce(' ' || a.api_base, '')"
