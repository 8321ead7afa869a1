"""The numbers of the first page, counted from rows."""

from dataclasses import dataclass

from shared.db import Tx, hot

COUNTS = """
select (select count(*) from organizations where status <> 'deleted') as organizations,
       (select count(*) from teams where status <> 'deleted') as teams,
       (select count(*) from model_access_groups where status = 'active') as model_groups,
       a.allocated, a.used, c.in_flight, c.waiting,
       (select count(*) from jobs
         where created_at >= date_trunc('day', app_now() at time zone 'UTC') at time zone 'UTC') as jobs_today,
       w.webhooks_failing, w.webhooks_disabled,
       (select count(*) from delivery_queues where open_s > 0) as circuits_open
  from (select coalesce(sum(allocated), 0)::bigint as allocated, coalesce(sum(used), 0)::bigint as used
          from credit_accounts join teams on teams.id = team_id where teams.status <> 'deleted') a,
       (select count(*) filter (where state = 'in_progress') as in_flight,
               count(*) filter (where state = 'pending') as waiting
          from calls where state in ('pending', 'in_progress')) c,
       (select count(*) filter (where status = 'active' and failing_since is not null) as webhooks_failing,
               count(*) filter (where status = 'disabled') as webhooks_disabled
          from webhook_endpoints where deleted_at is null) w
"""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """in_flight: calls that run; waiting: those that wait for their turn or a retry. Deleted things do not count.

    webhooks_failing: active endpoints without a 2xx since their first failure. circuits_open: half open ones too.
    """

    organizations: int
    teams: int
    model_groups: int
    allocated: int
    used: int
    in_flight: int
    waiting: int
    jobs_today: int
    webhooks_failing: int
    webhooks_disabled: int
    circuits_open: int


async def counts(tx: Tx) -> Counts:
    """As of now, in one statement."""
    rows = await hot(tx, COUNTS)
    return Counts(**rows[0]._asdict())
