"""Keys in the form of LiteLLM's answers."""

from typing import Any

from shared import money
from shared.budgets import Budget
from shared.clock import iso
from shared.key_views import KeyView

KEPT_TERMS = ("soft_budget", "budget_duration")
"""How a budget would act: kept on the key as long as it has no maximum."""


def info(key: KeyView, budget: Budget | None) -> dict[str, Any]:
    """All there is to say of a key: our fields over those that were only kept."""
    return {
        **key.extra,
        "status": key.status,
        "key_alias": key.key_alias,
        "key_name": key.hint,
        "spend": money.usd(key.spent_nanousd),
        **budget_of(key, budget),
        "expires": iso(key.expires_at),
        "models": key.models or [],
        "aliases": key.aliases,
        "user_id": key.user_id,
        "team_id": key.team_id,
        "organization_id": key.organization_id,
        "permissions": key.extra.get("permissions", {}),
        "max_parallel_requests": key.max_parallel_requests,
        "metadata": key.metadata,
        "tags": key.tags,
        "blocked": key.blocked,
        "tpm_limit": key.tpm_limit,
        "rpm_limit": key.rpm_limit,
        "key_type": key.key_type,
        "allowed_routes": key.allowed_routes or [],
        "created_at": iso(key.created_at),
        "created_by": key.created_by,
        "updated_at": iso(key.updated_at),
        "updated_by": key.updated_by,
        "last_active": iso(key.last_active_at),
    }


def budget_of(key: KeyView, budget: Budget | None) -> dict[str, Any]:
    """The key's budget in USD; without a maximum, what was said of one."""
    if budget is None:
        kept = {name: key.extra.get(name) for name in KEPT_TERMS}
        return {"max_budget": None, **kept, "budget_reset_at": None}
    return {
        "max_budget": money.usd(budget.max_nanousd),
        "soft_budget": None if budget.soft_nanousd is None else money.usd(budget.soft_nanousd),
        "budget_duration": budget.duration,
        "budget_reset_at": iso(budget.resets_at),
    }


def row(key: KeyView, budget: Budget | None) -> dict[str, Any]:
    """A key in a list."""
    return {**info(key, budget), "token": key.token}


def generated(key: KeyView, budget: Budget | None, *, secret: str, duration: str | None) -> dict[str, Any]:
    """A key with its secret."""
    return {
        **info(key, budget),
        "key": secret,
        "token": key.token,
        "token_id": key.token,
        "duration": duration,
        "litellm_budget_table": None,
    }
