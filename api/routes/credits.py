"""Credits as a team and its admins read them: balance, transactions, and whether there is enough."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field
from starlette.requests import Request

from api import accounts, objects
from api.auth import Caller
from api.fields import MAX_CREDITS, Absent
from api.http import endpoint
from api.lists import DatedPage, next_link
from api.once import Once
from api.replies import Reply
from api.wire.credits import BalanceOut, CheckOut, Kind, RefusedCheckOut, TransactionsOut
from shared import credit_accounts
from shared.credit_accounts import Balance
from shared.errors import Forbidden
from shared.runtime import Runtime

NO_ACCOUNT = "No credit account found for team '{}'"


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


class CheckQuery(Absent):
    """The query of POST /credits/teams/{team_id}/check."""

    credits_needed: Annotated[int, Field(ge=1, le=MAX_CREDITS)] = 1


@endpoint("any", answers=BalanceOut)
async def get_balance(rt: Runtime, caller: Caller, query: BalanceQuery) -> dict[str, Any]:
    """The balance of the team asked for, by default the caller's own."""
    return await _balance(rt, caller, accounts.team_asked(caller, query.team_id))


@endpoint("any", answers=BalanceOut)
async def get_team_balance(rt: Runtime, caller: Caller, team_id: str) -> dict[str, Any]:
    """The balance of the team in the path."""
    return await _balance(rt, caller, team_id)


@endpoint("any", answers=TransactionsOut)
async def list_transactions(rt: Runtime, caller: Caller, request: Request, query: AnyTransactionsQuery) -> Reply:
    """The transactions of the team asked for, by default the caller's own."""
    return await _transactions(rt, caller, request, accounts.team_asked(caller, query.team_id), query)


@endpoint("any", answers=TransactionsOut)
async def list_team_transactions(
    rt: Runtime, caller: Caller, request: Request, team_id: str, query: TransactionsQuery
) -> Reply:
    """The transactions of the team in the path."""
    return await _transactions(rt, caller, request, team_id, query)


@endpoint("any", answers=CheckOut | RefusedCheckOut)
async def check_credits(rt: Runtime, caller: Caller, once: Once, team_id: str, query: CheckQuery) -> dict[str, Any]:
    """Whether the gate lets so many credits through now; nothing is set aside."""
    if not caller.may_see(team_id):
        raise Forbidden("Cannot check credits for a different team")
    async with rt.db.statement() as tx:
        _, account = await accounts.find(tx, team_id, unknown=NO_ACCOUNT)
    return await once.store(_checked(account, query.credits_needed))


async def _balance(rt: Runtime, caller: Caller, team_id: str) -> dict[str, Any]:
    if not caller.may_see(team_id):
        raise Forbidden("Cannot access credit balance for a different team")
    async with rt.db.statement() as tx:
        team, account = await accounts.find(tx, team_id, unknown=NO_ACCOUNT)
    return objects.balance(account, team, admin=caller.is_admin)


async def _transactions(rt: Runtime, caller: Caller, request: Request, team_id: str, query: TransactionsQuery) -> Reply:
    if not caller.may_see(team_id):
        raise Forbidden("Cannot access credit transactions for a different team")
    wanted = credit_accounts.EntryFilter(
        team_id=team_id, kind=query.transaction_type, job_id=query.job_id, since=query.since, before=query.before
    )
    async with rt.db.statement() as tx:
        team, _ = await accounts.find(tx, team_id, unknown=NO_ACCOUNT)
        total = await credit_accounts.count_entries(tx, wanted)
        entries = await credit_accounts.entries(tx, wanted, limit=query.limit, offset=query.offset)
    body = {
        "team_id": team_id,
        "total": total,
        "limit": query.limit,
        "offset": query.offset,
        "transactions": [objects.transaction(entry, team.organization_id) for entry in entries],
    }
    return Reply(body=body, headers=next_link(request, query, total))


def _checked(account: Balance, needed: int) -> dict[str, Any]:
    if account.room is None or needed <= account.room:
        return {
            "team_id": account.team_id,
            "has_credits": True,
            "credits_remaining": account.remaining,
            "credits_available": account.available,
            "credits_needed": needed,
        }
    error = (
        f"Insufficient credits. Team has {account.room} credits remaining, but {needed} required. "
        f"Allocated: {account.allocated}, Used: {account.used}"
    )
    held = f", Held: {account.held}" if account.held else ""
    limit = "" if account.credit_limit is None else f", Limit: {account.credit_limit}"
    return {
        "team_id": account.team_id,
        "has_credits": False,
        "error": error + held + limit,
        "credits_needed": needed,
    }
