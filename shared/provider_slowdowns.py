"""Providers that refused for their rate limit: until when no line of a batch goes there, and how many may go after.

A scope is a provider at one address: aliases with an `api_base` of their own are other servers. Every refusal of an
attempt that began after the last one halves what may run there at once; time gives it back.
"""

from collections.abc import Collection
from dataclasses import dataclass

from shared.db import Tx, hot
from shared.sql_terms import SCOPE

LONGEST_S = 60
"""No Retry-After and no backoff pauses a provider for longer."""
GROWS_IN_S = 10
"""In so many seconds a halved provider has what it had; it grows by at least one line a second."""
KNOWN_S = 120
"""A provider that has refused nobody for so long is a provider like any other."""

MAY_RUN = f"""
s.in_flight + floor(greatest(0, extract(epoch from app_now() - s.until)) * greatest(1, s.in_flight / {GROWS_IN_S}.0))
"""

# Without a Retry-After, twice the last pause while the provider goes on refusing. Attempts that began before the last
# refusal, and were refused with it, tell nothing new: only one that came after it halves again.
RECORD = f"""
with refused as (
    select {SCOPE} as scope from model_aliases a where a.alias = %(alias)s
), running as (
    select count(*) as lines from calls c join model_aliases a on a.alias = c.candidates[c.candidate + 1]
     where c.state = 'in_progress' and c.batched and {SCOPE} = (select scope from refused)
)
insert into provider_slowdowns as s (provider, refused_at, until, in_flight)
select r.scope, app_now(), app_now() + make_interval(secs => least({LONGEST_S}, coalesce(%(retry_after_s)s, 1))),
       greatest(1, g.lines / 2) from refused r, running g
on conflict (provider) do update
   set until = greatest(s.until, app_now() + make_interval(secs => least({LONGEST_S}, coalesce(%(retry_after_s)s,
           case when s.until > app_now() - make_interval(secs => {GROWS_IN_S})
                then 2 * extract(epoch from s.until - s.refused_at) else 1 end)))),
       refused_at = app_now(), in_flight = excluded.in_flight
 where s.refused_at < app_now() - make_interval(secs => %(began_s)s)
"""

KNOWN = f"""
select s.provider as scope, s.until > app_now() as is_paused, ({MAY_RUN})::int as may_run
  from provider_slowdowns s where s.until > app_now() - make_interval(secs => {KNOWN_S})
"""

# Of lines only: what runs, and what is rung and may be claimed any moment.
RUNNING = f"""
select {SCOPE} as scope, count(*) as lines
  from (select candidates[candidate + 1] as alias from calls where state = 'in_progress' and batched
        union all
        select candidates[candidate + 1] from calls
         where state = 'pending' and rung_at is not null and batched and run_at <= app_now()) c
  join model_aliases a on a.alias = c.alias
 where {SCOPE} = any(%s) group by 1
"""


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """How a provider that refused lately takes lines now. may_run: at once, once it is not paused."""

    scope: str
    is_paused: bool
    may_run: int


async def record(tx: Tx, *, alias: str, began_s: float, retry_after_s: float | None) -> None:
    """An attempt at the alias, begun so many seconds ago, was refused. To be told while it still counts as running."""
    await hot(tx, RECORD, {"alias": alias, "began_s": began_s, "retry_after_s": retry_after_s})


async def known(tx: Tx) -> list[Slowdown]:
    """The providers that refused lately."""
    return [Slowdown(**row._asdict()) for row in await hot(tx, KNOWN)]


async def running(tx: Tx, scopes: Collection[str]) -> dict[str, int]:
    """How many lines run at these, or are rung to."""
    rows = await hot(tx, RUNNING, (list(scopes),)) if scopes else []
    return {row.scope: row.lines for row in rows}
