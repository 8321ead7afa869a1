"""Whose key a call uses, decided in one place for those who accept calls and those who run them.

the alias's own key           with the alias's api_base, or the provider's own
the credential it names       of the team's organization, active or not
the organization's active one for the provider
the server's environment      with the provider's own base URL only; no row, so not decided here
"""

# For a statement in which `a` is a model alias and `t` the team. An alias with a server of its own never gets the key
# of another one, a name never leads to another provider's key.
CHOSEN = """
left join lateral (
    select p.id, p.api_key_sealed, p.api_base
      from provider_credentials p
     where a.api_key_sealed is null and p.organization_id = t.organization_id and p.provider = a.provider
       and (p.is_active or p.credential_name = a.credential_name)
       and (a.api_base is null or rtrim(a.api_base, '/') = rtrim(p.api_base, '/'))
     order by p.credential_name = a.credential_name desc nulls last limit 1
) chosen on true
"""

# With that: the provider at the address that is asked, and the key it is asked with, as `provider_circuits` has them.
ASKED_AT = "a.provider || coalesce(' ' || coalesce(a.api_base, chosen.api_base), '')"
ASKED_WITH = "coalesce(case when a.api_key_sealed is not null then 'alias ' || a.alias end, chosen.id::text, '')"
