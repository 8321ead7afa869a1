"""Giving credits, by admins: adding, replenishing against a payment, refunding, and refilling by itself."""

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import AliasChoices, Field

from api import accounts, objects, team_objects
from api.access import parse_id
from api.accounts import Amount
from api.auth import Caller
from api.fields import MAX_CREDITS, Absent, Description
from api.http import endpoint
from api.once import Once
from api.wire.credits import AddedOut, AutoRefillOut, RefundedOut, ReplenishedOut, TransactionOut
from shared import audit, credit_accounts, jobs, money, names, refilling, refills
from shared.clock import iso
from shared.credit_accounts import Entry
from shared.db import Tx
from shared.errors import BadRequest, Conflict, Invalid, NotFound
from shared.runtime import Runtime

AMOUNT = AliasChoices("amount", "credits", "credits_amount")
CREDITS = AliasChoices("credits", "amount", "credits_amount")
REASON = AliasChoices("description", "reason")
PAYMENTS = {"subscription": "subscription_payment", "one_time": "one_time_payment"}


class AddToTeam(Absent):
    """The body of the routes that name the team in the path."""

    amount: Amount = Field(le=MAX_CREDITS, validation_alias=AMOUNT)
    reason: Description = Field(default="Manual credit allocation", validation_alias=REASON)


class AddCredits(AddToTeam):
    """The body of POST /credits/add."""

    team_id: str


class Replenish(Absent):
    """The body of POST /credits/teams/{team_id}/replenish."""

    credits_: Amount = Field(le=MAX_CREDITS, validation_alias=CREDITS)
    payment_type: str
    payment_amount_usd: Annotated[Decimal, Field(ge=0, le=10**9, allow_inf_nan=False)] | None = None
    reason: Description | None = Field(default=None, validation_alias=AliasChoices("reason", "description"))


class Refund(Absent):
    """The body of POST /credits/teams/{team_id}/refund: what a job was charged, or credits without a job."""

    job_id: str | None = None
    credits_: Annotated[Amount, Field(le=MAX_CREDITS)] | None = Field(default=None, validation_alias=CREDITS)
    reason: Description | None = Field(default=None, validation_alias=AliasChoices("reason", "description"))


class ConfigureAutoRefill(Absent):
    """The body of POST /credits/teams/{team_id}/configure-auto-refill."""

    enabled: bool
    refill_amount: Annotated[Amount, Field(le=MAX_CREDITS)] | None = None
    refill_period: str | None = None


@endpoint("admin:w", answers=AddedOut)
async def add_credits(rt: Runtime, caller: Caller, once: Once, body: AddCredits) -> dict[str, Any]:
    """Add credits to the team in the body."""
    return await _added(rt, caller, once, body.team_id, body)


@endpoint("admin:w", answers=AddedOut)
async def add_team_credits(rt: Runtime, caller: Caller, once: Once, team_id: str, body: AddToTeam) -> dict[str, Any]:
    """Add credits to the team in the path."""
    return await _added(rt, caller, once, team_id, body)


@endpoint("admin:w", answers=TransactionOut)
async def allocate_team_credits(
    rt: Runtime, caller: Caller, once: Once, team_id: str, body: AddToTeam
) -> dict[str, Any]:
    """Add credits to the team in the path; the answer is the transaction."""
    amount = accounts.whole(body.amount)
    async with rt.db.transaction() as tx:
        entry = await _grant(tx, team_id, amount, kind="allocation", reason=body.reason)
        await _audit(tx, caller, "added_credits", entry)
        return await once.keep(tx, await _shown(tx, entry))


@endpoint("admin:w", answers=ReplenishedOut)
async def replenish(rt: Runtime, caller: Caller, once: Once, team_id: str, body: Replenish) -> dict[str, Any]:
    """Add credits that were paid for; what was paid is kept on the ledger."""
    if body.payment_type not in PAYMENTS:
        raise BadRequest("payment_type must be 'subscription' or 'one_time'")
    amount = accounts.whole(body.credits_)
    paid = None if body.payment_amount_usd is None else money.nanousd(body.payment_amount_usd)
    reason = body.reason or f"Credit replenishment ({body.payment_type})"
    async with rt.db.transaction() as tx:
        kind = PAYMENTS[body.payment_type]
        entry = await _grant(tx, team_id, amount, kind=kind, reason=reason, payment_nanousd=paid)
        paid_usd = None if paid is None else money.usd(paid)
        await _audit(tx, caller, "replenished_credits", entry, payment_type=body.payment_type, payment_usd=paid_usd)
        answer = {
            "team_id": team_id,
            "credits_added": entry.amount,
            "credits_before": entry.before,
            "credits_after": entry.after,
            "payment_type": body.payment_type,
            "payment_amount_usd": paid_usd,
            "transaction": await _shown(tx, entry),
        }
        return await once.keep(tx, answer)


@endpoint("admin:w", answers=RefundedOut)
async def refund(rt: Runtime, caller: Caller, once: Once, team_id: str, body: Refund) -> dict[str, Any]:
    """Give back what a job was charged, once for each job, or credits for another reason."""
    if body.job_id is None and body.credits_ is None:
        raise Invalid.at(["body", "job_id"], "job_id or credits is required", "value_error.missing")
    amount = None if body.credits_ is None else accounts.whole(body.credits_)
    async with rt.db.transaction() as tx:
        await team_objects.lock_team(tx, team_id)
        if body.job_id is not None:
            entry = await _refund_job(tx, team_id, parse_id(body.job_id, "Job not found"), amount, body.reason)
        else:
            entry = await _grant(tx, team_id, amount or 0, kind="refund", reason=body.reason or "Manual refund")
        await _audit(tx, caller, "refunded_credits", entry, job_id=entry.job_id)
        answer = {
            "team_id": team_id,
            "credits_refunded": entry.amount,
            "credits_remaining": entry.after,
            "transaction": await _shown(tx, entry),
        }
        return await once.keep(tx, answer)


@endpoint("admin:w", answers=AutoRefillOut)
async def configure_auto_refill(
    rt: Runtime, caller: Caller, once: Once, team_id: str, body: ConfigureAutoRefill
) -> dict[str, Any]:
    """Refill the account by itself from one period after now, or no longer; refills due before are given first."""
    wanted = _refill(body) if body.enabled else None
    async with rt.db.transaction() as tx:
        await team_objects.lock_team(tx, team_id)
        await refilling.give_all_due(tx, team_id)
        if wanted is None:
            await refills.disable(tx, team_id)
        else:
            await refills.enable(tx, team_id, amount=wanted[0], period=wanted[1])
        _, account = await accounts.find(tx, team_id)
        answer = {
            "team_id": team_id,
            "auto_refill_enabled": account.auto_refill,
            "refill_amount": account.refill_amount,
            "refill_period": account.refill_period,
            "last_refill_at": iso(account.last_refill_at),
            "next_refill_at": iso(account.next_refill_at),
            "message": f"Auto-refill {'enabled' if account.auto_refill else 'disabled'} successfully",
        }
        details = {"enabled": body.enabled, "amount": account.refill_amount, "period": account.refill_period}
        await audit.record(tx, caller.admin, "configured_auto_refill", "team", team_id, details)
        return await once.keep(tx, answer)


async def _added(rt: Runtime, caller: Caller, once: Once, team_id: str, body: AddToTeam) -> dict[str, Any]:
    amount = accounts.whole(body.amount)
    async with rt.db.transaction() as tx:
        entry = await _grant(tx, team_id, amount, kind="allocation", reason=body.reason)
        await _audit(tx, caller, "added_credits", entry)
        _, account = await accounts.find(tx, team_id)
        answer = {
            "team_id": team_id,
            "credits_added": entry.amount,
            "credits_allocated": account.allocated,
            "credits_remaining": account.remaining,
            "transaction_id": objects.transaction_id(entry),
            "transaction": await _shown(tx, entry),
        }
        return await once.keep(tx, answer)


async def _grant(
    tx: Tx, team_id: str, amount: int, *, kind: str, reason: str, payment_nanousd: int | None = None
) -> Entry:
    entry = None
    if names.is_name(team_id):
        entry = await credit_accounts.grant(
            tx, team_id, amount, kind=kind, reason=reason, payment_nanousd=payment_nanousd
        )
    if entry is None:
        raise NotFound(f"Team '{team_id}' not found")
    return entry


async def _refund_job(tx: Tx, team_id: str, job_id: UUID, amount: int | None, reason: str | None) -> Entry:
    job = await jobs.get(tx, job_id)
    if job is None or job.team_id != team_id:
        raise NotFound("Job not found")
    if not job.credits_charged:
        raise BadRequest("Job was not charged")
    back = job.credits_charged if amount is None else amount
    if back > job.credits_charged:
        raise BadRequest(f"Job was charged {job.credits_charged} credits, no more can be refunded")
    entry = await credit_accounts.refund_job(tx, team_id, job_id, back, reason=reason or f"Refund of job {job_id}")
    if entry is None:
        raise Conflict("Job was already refunded")
    return entry


async def _shown(tx: Tx, entry: Entry) -> dict[str, Any]:
    team, _ = await accounts.find(tx, entry.team_id)
    return objects.transaction(entry, team.organization_id)


async def _audit(tx: Tx, caller: Caller, action: str, entry: Entry, **more: Any) -> None:
    details = {"credits": entry.amount, "transaction_id": objects.transaction_id(entry), "reason": entry.reason}
    await audit.record(tx, caller.admin, action, "team", entry.team_id, {**details, **more})


def _refill(body: ConfigureAutoRefill) -> tuple[int, str]:
    amount = body.refill_amount
    if amount is None or amount <= 0 or amount != int(amount):
        raise BadRequest("refill_amount must be a positive integer when enabling auto-refill")
    if body.refill_period is None:
        raise BadRequest("refill_period must be specified when enabling auto-refill")
    if body.refill_period not in refills.PERIODS:
        raise BadRequest("refill_period must be 'monthly', 'weekly', or 'daily'")
    return int(amount), body.refill_period
