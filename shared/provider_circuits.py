"""Circuits of providers: one for each address, model and key; while it is open, calls go to their other candidates.

closed       no row, or a few failures in a row
open         five failures in a row, no more than a minute between them: for 10 s, after each failed probe twice as long
half open    from `open_until` on: one call at a time goes there, as a probe (shared/detours.py)

What is well has no row. A row is written when something fails, and deleted when something is answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from shared.credential_choice import ASKED_AT
from shared.db import Tx, hot

OPENS_AFTER = 5
"""Failures in a row."""
FORGETS_S = 60
"""A failure that comes so long after the one before is the first of a row."""
OPEN_S = 10
LONGEST_OPEN_S = 120
OLD_S = 3600
"""A circuit about which nothing was heard for so long is forgotten."""

TARGET = "scope, litellm_model, credential"

# What an attempt tells that began before the circuit was half open is known already: it changes nothing.
RECORD = f"""
with r as materialized (
    select * from unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::float8[])
               as r({TARGET}, failures, began_s)
)
insert into provider_circuits as p ({TARGET}, failures, failed_at, opened_at, open_until)
select {TARGET}, r.failures, app_now(), o.at, o.at + interval '{OPEN_S} s'
  from r cross join lateral (select case when r.failures >= {OPENS_AFTER} then app_now() end as at) o
 where r.failures > 0 or exists (
       select from provider_circuits k
        where (k.scope, k.litellm_model, k.credential) = (r.scope, r.litellm_model, r.credential))
 order by {TARGET}
on conflict ({TARGET}) do update set (failures, failed_at, opened_at, open_until) = (
    select n.failures, app_now(),
           case when n.opens then app_now() else p.opened_at end,
           case when n.opens then app_now() + n.open_for else p.open_until end
      from r cross join lateral (
           select f.failures, case when p.opened_at is null then f.failures >= {OPENS_AFTER}
                                   else app_now() - make_interval(secs => r.began_s) >= p.open_until end as opens,
                  case when p.opened_at is null then interval '{OPEN_S} s'
                       else least(2 * (p.open_until - p.opened_at), interval '{LONGEST_OPEN_S} s') end as open_for
             from (select r.failures + case when p.opened_at is not null or p.failed_at > app_now() - interval
                          '{FORGETS_S} s' then p.failures else 0 end as failures) f) n
     where (r.scope, r.litellm_model, r.credential) = (p.scope, p.litellm_model, p.credential))
returning {TARGET}, failures, extract(epoch from open_until - app_now())::float8 as open_in_s,
          opened_at is not distinct from app_now() as opens
"""

# An answer that was asked for before the circuit opened says nothing of now.
CLOSE = f"""
with r as materialized (
    select * from unnest(%s::text[], %s::text[], %s::text[], %s::float8[]) as r({TARGET}, began_s)
), held as (
    select {TARGET}, p.opened_at is not null as was_open from provider_circuits p join r using ({TARGET})
     where p.opened_at is null or app_now() - make_interval(secs => r.began_s) >= p.opened_at
     order by {TARGET} for update of p
)
delete from provider_circuits p using held h
 where (p.scope, p.litellm_model, p.credential) = (h.scope, h.litellm_model, h.credential)
returning h.*
"""

RELEASE = f"""
update provider_circuits set probed_at = null where ({TARGET}) = (%s, %s, %s) and probed_at = %s
"""

KNOWN = f"""
select {TARGET}, extract(epoch from open_until - app_now())::float8 as open_in_s from provider_circuits
"""

# One alias is asked at several addresses, and with several keys, where organizations have credentials of their own.
OPEN_ALIASES = f"""
select distinct a.alias
  from provider_circuits p
  left join provider_credentials chosen on chosen.id::text = p.credential
  join model_aliases a on a.litellm_model = p.litellm_model and {ASKED_AT} = p.scope
   and p.credential = case when a.api_key_sealed is not null then 'alias ' || a.alias
                           else coalesce(chosen.id::text, '') end
 where p.opened_at is not null
"""

FORGET = f"""
delete from provider_circuits where ({TARGET}) in (
    select {TARGET} from provider_circuits
     where failed_at < app_now() - interval '{OLD_S} s' limit %s for update skip locked)
returning scope
"""


class Target(NamedTuple):
    """What fails together. scope: the provider, and after a space its address where it is not the provider's own.

    credential: its id; `alias NAME` of an alias that has a key of its own; empty for the environment's.
    """

    scope: str
    litellm_model: str
    credential: str


class Failed(NamedTuple):
    """Failures of a target in a row, since it last answered; began_s: how long ago the last of these attempts began."""

    target: Target
    failures: int
    began_s: float


class Answered(NamedTuple):
    """A target that answered; began_s: how long ago the last of these attempts began."""

    target: Target
    began_s: float


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """A target of which failures are known. open_in_s: for how long it stays open, negative: half open; None: closed.

    opens: it was opened by this failure.
    """

    target: Target
    open_in_s: float | None
    failures: int = 0
    opens: bool = False


@dataclass(frozen=True, kw_only=True)
class Closed:
    """A target that is well again."""

    target: Target
    was_open: bool


async def record(tx: Tx, failed: Sequence[Failed]) -> list[Circuit]:
    """Count failures, one row for each target, and open what has failed too often. Returns how each stands now."""
    columns = (*_columns([one.target for one in failed]), [f.failures for f in failed], [f.began_s for f in failed])
    return [
        Circuit(target=_target(row), open_in_s=row.open_in_s, failures=row.failures, opens=row.opens)
        for row in await hot(tx, RECORD, columns)
    ]


async def close(tx: Tx, answered: Sequence[Answered]) -> list[Closed]:
    """Forget what failed before these were answered. Returns what was known and is well now."""
    columns = (*_columns([one.target for one in answered]), [one.began_s for one in answered])
    return [Closed(target=_target(row), was_open=row.was_open) for row in await hot(tx, CLOSE, columns)]


async def release(tx: Tx, target: Target, probed_at: datetime) -> None:
    """The probe that was claimed then has ended and told nothing: the next call is one."""
    await hot(tx, RELEASE, (*target, probed_at))


async def known(tx: Tx) -> list[Circuit]:
    """Every target that has failed lately and was not answered since."""
    return [Circuit(target=_target(row), open_in_s=row.open_in_s) for row in await hot(tx, KNOWN)]


async def open_aliases(tx: Tx) -> set[str]:
    """The aliases of which a circuit, with whatever key, is not closed."""
    return {row.alias for row in await hot(tx, OPEN_ALIASES)}


async def forget(tx: Tx, *, limit: int) -> int:
    """Delete what nobody has asked for an hour. Returns how many there were, at most `limit`."""
    return len(await hot(tx, FORGET, (limit,)))


def _target(row: Any) -> Target:
    return Target(row.scope, row.litellm_model, row.credential)


def _columns(targets: Sequence[Target]) -> tuple[list[str], list[str], list[str]]:
    return [t.scope for t in targets], [t.litellm_model for t in targets], [t.credential for t in targets]
