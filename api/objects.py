"""The JSON objects that routes of several files answer with: team, balance, credit transaction."""

from decimal import Decimal
from typing import Any

from shared import ids, money
from shared.clock import iso
from shared.credit_accounts import Balance, Entry
from shared.teams import Team
from shared.usage import Totals


def balance(account: Balance, team: Team, *, admin: bool) -> dict[str, Any]:
    """The balance object; the markup is for admins."""
    found = {
        "team_id": account.team_id,
        "organization_id": team.organization_id,
        **credits_of(account),
        "overage": max(0, -account.remaining),
        "percentage_used": percentage(account.used, account.allocated),
        "status": team.status,
        "credit_limit": account.credit_limit,
        "auto_refill": account.auto_refill,
        "refill_amount": account.refill_amount,
        "refill_period": account.refill_period,
        "last_refill_at": iso(account.last_refill_at),
        "next_refill_at": iso(account.next_refill_at),
        "budget_mode": team.budget_mode,
        "limit_mode": account.limit_mode,
        "credits_per_dollar": float(team.credits_per_dollar),
        "tokens_per_credit": team.tokens_per_credit,
        "created_at": iso(account.created_at),
        "updated_at": iso(account.updated_at),
    }
    return found | _markup(team) if admin else found


def percentage(part: int, whole: int) -> float:
    """`part` of `whole` in percent; of nothing, it is all or nothing."""
    return round(100 * part / whole, 2) if whole else (100.0 if part > 0 else 0.0)


def credits_of(account: Balance) -> dict[str, int]:
    """The five counts every object with credits shows."""
    return {
        "credits_allocated": account.allocated,
        "credits_used": account.used,
        "credits_remaining": account.remaining,
        "credits_held": account.held,
        "credits_available": account.available,
    }


def team(found: Team, account: Balance, used: Totals, *, admin: bool) -> dict[str, Any]:
    """The team object, its own key masked; the markup is for admins."""
    return {
        "team_id": found.id,
        "organization_id": found.organization_id,
        "team_alias": found.team_alias,
        "status": found.status,
        "paused_until": iso(found.paused_until),
        **access(found),
        **_settings(found, account),
        **(_markup(found) if admin else {}),
        **credits_of(account),
        "credits": balance(account, found, admin=admin),
        "usage_summary": usage_summary(used),
        "virtual_key": found.key_hint,
        "metadata": found.metadata,
        "created_at": iso(found.created_at),
        "updated_at": iso(found.updated_at),
    }


def access(found: Team) -> dict[str, list[str]]:
    """Groups and models under both of the names that clients read."""
    return {
        "access_groups": found.access_groups,
        "model_groups": found.access_groups,
        "allowed_model_aliases": found.aliases,
        "allowed_models": found.aliases,
    }


def usage_summary(used: Totals) -> dict[str, Any]:
    """Sums over all jobs."""
    return {"total_jobs": used.total_jobs, "total_cost_usd": money.usd(used.total_cost_nanousd)}


def transaction(entry: Entry, organization_id: str) -> dict[str, Any]:
    """A ledger line as credit transaction."""
    return {
        "transaction_id": transaction_id(entry),
        "team_id": entry.team_id,
        "organization_id": organization_id,
        "job_id": None if entry.job_id is None else str(entry.job_id),
        "transaction_type": entry.kind,
        "type": "addition" if entry.amount > 0 else "deduction",
        "credits_amount": entry.amount,
        "amount": abs(entry.amount),
        "credits_before": entry.before,
        "credits_after": entry.after,
        "balance_after": entry.after,
        "reason": entry.reason,
        "description": entry.reason,
        "created_at": iso(entry.created_at),
        "timestamp": iso(entry.created_at),
    }


def transaction_id(entry: Entry) -> str:
    """`txn_…`."""
    return ids.prefixed("txn", entry.id)


def _settings(found: Team, account: Balance) -> dict[str, Any]:
    return {
        "default_model": found.default_model,
        "budget_mode": found.budget_mode,
        "limit_mode": account.limit_mode,
        "credit_limit": account.credit_limit,
        "alert_at_percentage": [_number(level) for level in found.alert_at_percentage],
        "credits_per_dollar": float(found.credits_per_dollar),
        "tokens_per_credit": found.tokens_per_credit,
        "charge_failed_calls": found.charge_failed_calls,
        "rpm_limit": found.rpm_limit,
        "tpm_limit": found.tpm_limit,
        "max_parallel_calls": found.max_parallel_calls,
        "max_queued_calls": found.max_queued_calls,
        "weight": found.weight,
        "store_payloads": found.store_payloads,
        "max_budget_usd": _usd(found.max_nanousd),
        "budget_duration": found.budget_duration,
        "budget_spent_usd": _usd(found.budget_spent_nanousd),
    }


def _markup(found: Team) -> dict[str, float]:
    return {"cost_markup_percentage": float(found.cost_markup_percentage)}


def _usd(nanousd: int | None) -> float | None:
    return None if nanousd is None else money.usd(nanousd)


def _number(value: Decimal) -> int | float:
    return int(value) if value == int(value) else float(value)
