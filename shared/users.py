"""Users: whoever virtual keys were made for. They have no row of their own; a key that carries the id makes one."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from shared.db import Tx, hot

GET = """
with carried as (
    select k.id, k.created_at
      from virtual_keys k join teams t on t.id = k.team_id
     where k.user_id = %(user_id)s and k.secret_of is null
       and (%(organization_id)s::text is null or t.organization_id = %(organization_id)s)
)
select (select min(created_at) from carried) as created_at,
       (select coalesce(sum(u.client_cost_nanousd), 0)::bigint from usage_daily u
         where u.key_id in (select id from carried) and u.model <> '') as spent_nanousd
"""

TEAMS = """
select t.id, t.team_alias, t.organization_id from teams t
 where t.status <> 'deleted' and (%(organization_id)s::text is null or t.organization_id = %(organization_id)s)
   and exists (select from virtual_keys k where k.team_id = t.id and k.user_id = %(user_id)s and k.secret_of is null
                  and (k.revoked_at is null or k.revoked_at > app_now()))
 order by t.id limit %(limit)s
"""

MOST_TEAMS = 1000


class UserTeam(NamedTuple):
    """A team in which a user has a key."""

    id: str
    team_alias: str | None
    organization_id: str


@dataclass(frozen=True, kw_only=True)
class User:
    """Whom keys carry. created_at: when the first of them was made. spent_nanousd: client cost of all their calls."""

    id: str
    created_at: datetime
    spent_nanousd: int
    teams: list[UserTeam]


async def get(tx: Tx, user_id: str, *, organization_id: str | None) -> User | None:
    """The user, as far as the keys of this organization (None: of all) tell; None when no key ever carried the id."""
    params = {"user_id": user_id, "organization_id": organization_id, "limit": MOST_TEAMS}
    found = (await hot(tx, GET, params))[0]
    if found.created_at is None:
        return None
    teams = [UserTeam(*row) for row in await hot(tx, TEAMS, params)]
    return User(id=user_id, created_at=found.created_at, spent_nanousd=found.spent_nanousd, teams=teams)
