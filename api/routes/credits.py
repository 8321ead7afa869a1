"""Credits: balance and transactions for a team and its admins, and adding to it for admins."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AliasChoices, Field
from starlette.requests import Request

from api import objects
from api.auth import Caller
from api.fields import MAX_CREDITS, Absent, Description
from api.http import endpoint
from api.lists import DatedPage, next_link
from api.replies import Reply
from shared import credit_accounts, names, teams
from shared.credit_accounts import Balance, Entry
from shared.db import Tx
from shared.errors import BadRequest, Forbidden, Invalid, NotFound
from shared.runtime import Runtime
from shared.teams import Team

Amount = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)]
Kind = Literal["deduction", "allocation", "refund", "adjustment", "subscription_payment", "one_time_payment"]
AMOUNT = AliasChoices("amount", "credits", "credits_amount")
REASON = AliasChoices("description", "reason")


class BalanceQuery(Absent):
    """The query of GET /credits/balance."""

    team_id: str | None = None


class TransactionsQuery(DatedPage):
    """The query of the routes that name the team in the path."""

    transaction_type: Kind | None = None
    job_id: UUID | None = None


class AnyTransactionsQuery(TransactionsQuery):
    """The query of GET /credits/transactions."""

    team_id: str | None = None


class AddToTeam(Absent):
    """The body of the routes that name the team in the path."""

    amount: Amount = Field(le=MAX_CREDITS, validation_alias=AMOUNT)
    reason: Description = Field(default="Manual credit allocation", validation_alias=REASON)


class AddCredits(AddToTeam):
    """The body of POST /credits/add."""

    team_id: str


@endpoint("any")
async def get_balance(rt: Runtime, caller: Caller, query: BalanceQuery) -> dict[str, Any]:
    """The balance of the team asked for, by default the caller's own."""
    return await _balance(rt, caller, _team_asked(caller, query.team_id))


@endpoint("any")
async def get_team_balance(rt: Runtime, caller: Caller, team_id: str) -> dict[str, Any]:
    """The balance of the team in the path."""
    return await _balance(rt, caller, team_id)


@endpoint("any")
async def list_transactions(rt: Runtime, caller: Caller, request: Request, query: AnyTransactionsQuery) -> Reply:
    """The transactions of the team asked for, by default the caller's own."""
    return await _transactions(rt, caller, request, _team_asked(caller, query.team_id), query)


@endpoint("any")
async def list_team_transactions(
    rt: Runtime, caller: Caller, request: Request, team_id: str, query: TransactionsQuery
) -> Reply:
    """The transactions of the team in the path."""
    return await _transactions(rt, caller, request, team_id, query)


@endpoint("admin:w")
async def add_credits(rt: Runtime, body: AddCredits) -> dict[str, Any]:
    """Add credits to the team in the body."""
    return await _added(rt, body.team_id, body)


@endpoint("admin:w")
async def add_team_credits(rt: Runtime, team_id: str, body: AddToTeam) -> dict[str, Any]:
    """Add credits to the team in the path."""
    return await _added(rt, team_id, body)


@endpoint("admin:w")
async def allocate_team_credits(rt: Runtime, team_id: str, body: AddToTeam) -> dict[str, Any]:
    """Add credits to the team in the path; the answer is the transaction."""
    entry, team, _ = await _add(rt, team_id, body)
    return objects.transaction(entry, team.organization_id)


async def _balance(rt: Runtime, caller: Caller, team_id: str) -> dict[str, Any]:
    if not caller.may_see(team_id):
        raise Forbidden("Cannot access credit balance for a different team")
    async with rt.db.statement() as tx:
        found = await _account(tx, team_id)
    if found is None:
        raise NotFound(f"No credit account found for team '{team_id}'")
    return objects.balance(found[1], found[0], admin=caller.is_admin)


async def _transactions(rt: Runtime, caller: Caller, request: Request, team_id: str, query: TransactionsQuery) -> Reply:
    if not caller.may_see(team_id):
        raise Forbidden("Cannot access credit transactions for a different team")
    wanted = credit_accounts.EntryFilter(
        team_id=team_id, kind=query.transaction_type, job_id=query.job_id, since=query.since, before=query.before
    )
    async with rt.db.statement() as tx:
        found = await _account(tx, team_id)
        if found is None:
            raise NotFound(f"No credit account found for team '{team_id}'")
        total = await credit_accounts.count_entries(tx, wanted)
        entries = await credit_accounts.entries(tx, wanted, limit=query.limit, offset=query.offset)
    body = {
        "team_id": team_id,
        "total": total,
        "limit": query.limit,
        "offset": query.offset,
        "transactions": [objects.transaction(entry, found[0].organization_id) for entry in entries],
    }
    return Reply(body=body, headers=next_link(request, query, total))


def _team_asked(caller: Caller, asked: str | None) -> str:
    team_id = asked if asked is not None else caller.team_id
    if team_id is None:
        raise Invalid.at(["query", "team_id"], "field required", "value_error.missing")
    return team_id


async def _account(tx: Tx, team_id: str) -> tuple[Team, Balance] | None:
    team = await teams.get(tx, team_id) if names.is_name(team_id) else None
    account = await credit_accounts.balance(tx, team_id) if team else None
    return None if team is None or account is None else (team, account)


async def _added(rt: Runtime, team_id: str, body: AddToTeam) -> dict[str, Any]:
    entry, team, account = await _add(rt, team_id, body)
    return {
        "team_id": team_id,
        "credits_added": entry.amount,
        "credits_allocated": account.allocated,
        "credits_remaining": account.remaining,
        "transaction_id": objects.transaction_id(entry),
        "transaction": objects.transaction(entry, team.organization_id),
    }


async def _add(rt: Runtime, team_id: str, body: AddToTeam) -> tuple[Entry, Team, Balance]:
    if body.amount <= 0 or body.amount != int(body.amount):
        raise BadRequest("credits must be a positive integer")
    async with rt.db.transaction() as tx:
        entry = None
        if names.is_name(team_id):
            entry = await credit_accounts.grant(tx, team_id, int(body.amount), kind="allocation", reason=body.reason)
        found = await _account(tx, team_id)
        if entry is None or found is None:
            raise NotFound(f"Team '{team_id}' not found")
        return entry, *found
