"""Virtual keys, users and teams as clients of LiteLLM's routes read them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from api.wire.answers import Answer, Count, Metadata, Time, Usd


class KeyInfo(BaseModel):
    """A key; besides these every field that was sent with it and has no effect.

    `models`, `allowed_routes`: empty means all of the team's. `spend`: what its calls cost the team so far.
    """

    model_config = ConfigDict(extra="allow")

    status: Literal["active", "expired", "revoked", "blocked"]
    key_alias: str | None
    key_name: str
    spend: Usd
    max_budget: Usd | None
    soft_budget: Usd | None
    budget_duration: str | None
    budget_reset_at: Time | None
    expires: Time | None
    models: list[str]
    aliases: dict[str, str]
    user_id: str | None
    team_id: str
    organization_id: str
    permissions: dict[str, Any]
    max_parallel_requests: Count | None
    metadata: Metadata
    tags: list[str]
    blocked: bool
    tpm_limit: Count | None
    rpm_limit: Count | None
    key_type: Literal["default", "llm_api", "management", "read_only"]
    allowed_routes: list[str]
    created_at: Time
    created_by: str | None
    updated_at: Time
    updated_by: str | None
    last_active: Time | None


class KeyRow(KeyInfo):
    """A key in a list; `token` is its hash, by which it can be named."""

    token: str


class KeyInfoOut(Answer):
    """A key. `key`: its hash, or its masked name when it was asked for in clear."""

    key: str
    info: KeyInfo


class ChangedKeyOut(KeyInfo):
    """A key as it is now: as `info`, and flat."""

    key: str
    info: KeyInfo


class GeneratedKeyOut(KeyInfo):
    """A key with its secret, `key`, which is in this answer only. `token`, `token_id`: its hash."""

    key: str
    token: str
    token_id: str
    duration: str | None
    litellm_budget_table: None


class DeletedKeysOut(Answer):
    """What opens nothing any more: hashes, or the aliases that were given."""

    deleted_keys: list[str]


class KeyListOut(Answer):
    """A page of keys that are not revoked, newest first: their hashes, or all of them."""

    keys: list[str] | list[KeyRow]
    total_count: Count
    current_page: Count
    total_pages: Count


class UserTeam(Answer):
    """A team in which the user has a key."""

    team_id: str
    team_alias: str | None
    organization_id: str


class UserInfo(Answer):
    """Whom keys were made for. `spend`: client cost of all calls of these keys."""

    user_id: str
    user_alias: str | None
    user_email: str | None
    user_role: Literal["internal_user", "proxy_admin", "proxy_admin_viewer"]
    teams: list[str]
    max_budget: Usd | None
    spend: Usd
    models: list[str]
    metadata: Metadata
    tpm_limit: Count | None
    rpm_limit: Count | None
    created_at: Time


class UserInfoOut(Answer):
    """A user with a page of the keys that carry the id."""

    user_id: str
    user_info: UserInfo
    keys: list[KeyRow]
    teams: list[UserTeam]


class TeamInfo(Answer):
    """A team. `models`: the aliases it may use. `blocked`: it is suspended."""

    team_id: str
    team_alias: str | None
    organization_id: str
    spend: Usd
    max_budget: Usd | None
    tpm_limit: Count | None
    rpm_limit: Count | None
    models: list[str]
    metadata: Metadata
    blocked: bool
    members_with_roles: list[Any]
    admins: list[str]
    members: list[str]
    credits_remaining: int
    created_at: Time


class TeamInfoOut(Answer):
    """A team with its newest keys."""

    team_id: str
    team_info: TeamInfo
    keys: list[KeyRow]
    team_memberships: list[Any]


class CostOut(Answer):
    """USD: what the caller's team would pay; for admins, what the provider takes."""

    cost: Usd
