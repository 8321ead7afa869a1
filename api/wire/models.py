"""Aliases, access groups, model groups and provider credentials as they are read."""

from typing import Annotated, Literal

from pydantic import Field

from api.wire.answers import Answer, Count, Time, Usd
from shared.providers import PROVIDERS

Provider = Annotated[str, Field(json_schema_extra={"enum": [*PROVIDERS]})]
PriceSource = Literal["alias", "bundled", "unpriced"]
Status = Literal["active", "inactive"]


class Prices(Answer):
    """What a call is priced at, in USD per one million tokens; null where nobody knows a price."""

    pricing_input: Usd | None
    pricing_output: Usd | None
    pricing_cached_input: Usd | None


class TeamAliasOut(Prices):
    """An alias as a team that may use it sees it, at the prices it pays."""

    alias: str
    model_alias: str
    display_name: str
    description: str | None
    active: bool
    access_groups: list[str]


class AliasOut(TeamAliasOut):
    """An alias as admins see it."""

    litellm_model: str
    provider: Provider
    actual_model: str
    litellm_model_id: None
    status: Status
    fallbacks: list[str]
    price_source: PriceSource
    allow_unpriced: bool
    on_unknown: Literal["retry", "fail"]
    has_api_key: bool
    api_base: str | None
    teams_with_access: Count
    teams_using: list[str]
    usage_count: Count
    created_at: Time
    updated_at: Time


class AliasUsage(Answer):
    """What the calls that asked for an alias came to."""

    total_calls: Count
    total_cost_usd: Usd
    avg_tokens_per_call: Usd


class AliasWithUsageOut(AliasOut):
    """One alias as admins read it."""

    usage_stats: AliasUsage


class TeamMemberOut(Answer):
    """An alias in a group; the lowest priority is tried first."""

    model_alias: str
    alias: str
    display_name: str
    description: str | None
    priority: Count
    active: bool


class MemberOut(TeamMemberOut):
    """An alias in a group as admins see it."""

    provider: Provider
    actual_model: str
    litellm_model: str


class GroupHead(Answer):
    """What groups are in every form."""

    group_name: str
    display_name: str
    description: str | None
    status: Status
    created_at: Time
    updated_at: Time


class TeamGroupOut(GroupHead):
    """An access group as a team that holds it sees it."""

    model_aliases: list[TeamMemberOut]


class GroupOut(GroupHead):
    """An access group as admins see it."""

    model_aliases: list[MemberOut]
    teams_using: list[str]
    teams_with_access: Count


class ListedGroupOut(GroupOut):
    """An access group of a list."""

    model_count: Count
    team_count: Count


class GroupModelOut(Answer):
    """A model in a model group; priority 0 is the primary one."""

    id: str
    model_group_id: str
    model_name: str
    priority: Count
    is_active: bool
    created_at: Time


class ModelGroupOut(Answer):
    """A model group: an access group by its older name."""

    model_group_id: str
    group_name: str
    display_name: str
    description: str | None
    status: Status
    models: list[GroupModelOut]


class GroupModelsOut(Answer):
    """The models of a group, after a change of them."""

    group_name: str
    models: list[GroupModelOut]


class ResolvedGroupOut(Answer):
    """Where a call of a team that asks for this group goes; `error` says why nowhere."""

    group_name: str
    primary_model: str | None
    fallback_models: list[str] | None
    team_has_access: bool
    error: str | None = None


class CredentialOut(Answer):
    """A provider credential; its key is never shown."""

    credential_id: str
    organization_id: str
    provider: Provider
    credential_name: str
    api_base: str | None
    is_active: bool
    has_api_key: Literal[True]
    key_hint: str
    created_by: str | None
    created_at: Time
    updated_at: Time


class SwitchedCredentialOut(CredentialOut):
    """A provider credential that was switched on or off."""

    message: str


class DeletedCredentialOut(Answer):
    """What was deleted."""

    credential_id: str
    message: str
