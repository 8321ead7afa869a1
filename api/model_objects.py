"""The JSON objects of aliases and groups: whole for admins, without the provider's side for teams."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from shared import money
from shared.clock import iso
from shared.model_aliases import Alias, AliasUsage
from shared.model_groups import Group, Member
from shared.prices import PriceMap


def alias(prices: PriceMap, found: Alias, *, usage_count: int) -> dict[str, Any]:
    """The alias object; prices are those a call is priced at, `price_source` says where they come from."""
    source, numbers = _prices(prices, found)
    return {
        "alias": found.alias,
        "model_alias": found.alias,
        "display_name": found.display_name,
        "litellm_model": found.litellm_model,
        "provider": found.provider,
        "actual_model": found.actual_model,
        "litellm_model_id": None,
        "description": found.description,
        "active": found.active,
        "status": "active" if found.active else "inactive",
        "access_groups": found.access_groups,
        "fallbacks": found.fallbacks,
        **{name: money.usd_per_mtok(price) for name, price in numbers.items()},
        "price_source": source,
        "allow_unpriced": found.allow_unpriced,
        "on_unknown": found.on_unknown,
        "has_api_key": found.has_api_key,
        "api_base": found.api_base,
        "teams_with_access": len(found.teams),
        "teams_using": found.teams,
        "usage_count": usage_count,
        "created_at": iso(found.created_at),
        "updated_at": iso(found.updated_at),
    }


def alias_with_usage(prices: PriceMap, found: Alias, used: AliasUsage) -> dict[str, Any]:
    """The alias object with what its calls came to."""
    stats = {
        "total_calls": used.total_calls,
        "total_cost_usd": money.usd(used.total_cost_nanousd),
        "avg_tokens_per_call": round(used.total_tokens / used.total_calls, 2) if used.total_calls else 0.0,
    }
    return {**alias(prices, found, usage_count=used.total_calls), "usage_stats": stats}


def alias_for_team(prices: PriceMap, found: Alias, groups: list[str], markup_percentage: Decimal) -> dict[str, Any]:
    """What a team sees: the prices it pays, the groups of its own."""
    pays = {
        name: None if price is None else money.usd_per_mtok(money.with_markup(price, markup_percentage))
        for name, price in _prices(prices, found)[1].items()
    }
    return {
        "alias": found.alias,
        "model_alias": found.alias,
        "display_name": found.display_name,
        "description": found.description,
        "active": found.active,
        **pays,
        "access_groups": groups,
    }


def group(found: Group, members: Sequence[Member]) -> dict[str, Any]:
    """The access group object."""
    return {
        **_head(found),
        "model_aliases": [{**_shown(member), **_provider_side(member)} for member in members],
        "teams_using": found.teams,
        "teams_with_access": len(found.teams),
    }


def listed_group(found: Group, members: Sequence[Member]) -> dict[str, Any]:
    """The access group object of a list."""
    return {**group(found, members), "model_count": len(members), "team_count": len(found.teams)}


def model_group(found: Group, members: Sequence[Member]) -> dict[str, Any]:
    """The model group object: the same group in its older words."""
    return {
        "model_group_id": str(found.id),
        "group_name": found.group_name,
        "display_name": found.display_name,
        "description": found.description,
        "status": found.status,
        "models": group_models(found, members),
    }


def group_models(found: Group, members: Sequence[Member]) -> list[dict[str, Any]]:
    """The models of a model group."""
    return [
        {
            "id": str(member.id),
            "model_group_id": str(found.id),
            "model_name": member.alias,
            "priority": member.priority,
            "is_active": member.active,
            "created_at": iso(member.created_at),
        }
        for member in members
    ]


def group_for_team(found: Group, members: Sequence[Member]) -> dict[str, Any]:
    """What a team that holds the group sees: no provider, no provider's models, no other teams."""
    return {**_head(found), "model_aliases": [_shown(member) for member in members]}


def _prices(prices: PriceMap, found: Alias) -> tuple[str, dict[str, int | None]]:
    price = prices.price_of(found)
    if price is None:
        return "unpriced", dict.fromkeys(("pricing_input", "pricing_output", "pricing_cached_input"))
    return price.source, {
        "pricing_input": price.input,
        "pricing_output": price.output,
        "pricing_cached_input": price.cached_input,
    }


def _head(found: Group) -> dict[str, Any]:
    return {
        "group_name": found.group_name,
        "display_name": found.display_name,
        "description": found.description,
        "status": found.status,
        "created_at": iso(found.created_at),
        "updated_at": iso(found.updated_at),
    }


def _shown(member: Member) -> dict[str, Any]:
    return {
        "model_alias": member.alias,
        "alias": member.alias,
        "display_name": member.display_name,
        "description": member.description,
        "priority": member.priority,
        "active": member.active,
    }


def _provider_side(member: Member) -> dict[str, str]:
    return {
        "provider": member.provider,
        "actual_model": member.actual_model,
        "litellm_model": member.litellm_model,
    }
