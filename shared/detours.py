"""How a claim goes round the open circuits of providers: terms of the statement that claims calls.

A call stays at its candidate, or goes to the first one after it that may be asked. The last one always may.
"""

from shared.credential_choice import ASKED_AT, ASKED_WITH, CHOSEN

PROBE_S = 30
"""A probe that has not ended by then is followed by another: its worker may be gone, or its answer long."""

# Of `due` calls (id, team_id, candidates, candidate): `aims` says at which candidate each is asked. Of the calls that
# would go to a half-open circuit one does, as the probe; the others go on. A circuit that somebody else has locked is
# being probed, or closed: it is not waited for.
AIMS = f"""
steps as (
    select d.id, n.candidate, p.scope, p.litellm_model, p.credential,
           min(n.candidate) filter (where p.scope is null or n.is_last) over (partition by d.id) as free_at
      from due d
      join teams t on t.id = d.team_id
      cross join lateral (
          select w.alias, w.number::int - 1 as candidate, w.number = cardinality(d.candidates) as is_last
            from unnest(d.candidates) with ordinality w(alias, number) where w.number > d.candidate) n
      left join model_aliases a on a.alias = n.alias
      {CHOSEN}
      left join provider_circuits p
        on p.scope = {ASKED_AT} and p.litellm_model = a.litellm_model and p.credential = {ASKED_WITH}
       and p.opened_at is not null
), idle as (
    select p.scope, p.litellm_model, p.credential from provider_circuits p
     where p.open_until <= app_now() and (p.probed_at is null or p.probed_at <= app_now() - interval '{PROBE_S} s')
       and exists (select from steps s
                    where (s.scope, s.litellm_model, s.credential) = (p.scope, p.litellm_model, p.credential)
                      and s.candidate < s.free_at)
       for update skip locked
), probes as (
    select distinct on (scope, litellm_model, credential) scope, litellm_model, credential, s.id, s.candidate
      from idle join steps s using (scope, litellm_model, credential)
     where s.candidate < s.free_at order by scope, litellm_model, credential, s.candidate, s.id
), aims as (
    select s.id, least(s.free_at, min(p.candidate)) as candidate
      from steps s left join probes p on p.id = s.id group by s.id, s.free_at
), probing as (
    update provider_circuits c set probed_at = app_now()
      from probes p join aims m on m.id = p.id and m.candidate = p.candidate
     where (c.scope, c.litellm_model, c.credential) = (p.scope, p.litellm_model, p.credential)
    returning p.id, c.probed_at
)
"""
