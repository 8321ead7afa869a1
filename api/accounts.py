"""What credit routes share: whose account is asked for, finding it, and amounts of credits."""

from typing import Annotated

from pydantic import Field

from api.auth import Caller
from shared import credit_accounts, names, teams
from shared.credit_accounts import Balance
from shared.db import Tx
from shared.errors import BadRequest, Invalid, NotFound
from shared.teams import Team

Amount = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)]
"""A JSON number; `whole` says whether it is one of credits."""


def whole(amount: float) -> int:
    """An amount of credits. Raises BadRequest."""
    if amount <= 0 or amount != int(amount):
        raise BadRequest("credits must be a positive integer")
    return int(amount)


def team_asked(caller: Caller, asked: str | None) -> str:
    """The team in the query, by default the caller's own; an admin has none. Raises Invalid."""
    team_id = asked if asked is not None else caller.team_id
    if team_id is None:
        raise Invalid.at(["query", "team_id"], "field required", "value_error.missing")
    return team_id


async def find(tx: Tx, team_id: str, *, unknown: str = "Team '{}' not found") -> tuple[Team, Balance]:
    """A team with its account. Raises NotFound."""
    team = await teams.get(tx, team_id) if names.is_name(team_id) else None
    account = await credit_accounts.balance(tx, team_id) if team else None
    if team is None or account is None:
        raise NotFound(unknown.format(team_id))
    return team, account
