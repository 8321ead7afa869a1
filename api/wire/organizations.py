"""Organizations as clients read them, and what admins send about them."""

from typing import Any, Literal

from pydantic import AliasChoices, Field

from api.fields import Absent, Credits, Description, Id, Title
from api.wire.answers import Answer, Count, Metadata, Time
from api.wire.team_bodies import Groups
from api.wire.teams import TeamStatus, UsageSummary

DEFAULT_TEAM_GROUPS = AliasChoices("default_team_access_groups", "default_team_model_groups")


class CreateOrganization(Absent):
    """The body of POST /organizations/create."""

    organization_id: Id
    name: Title
    metadata: dict[str, Any] = Field(default={})
    create_default_team: bool = True
    default_team_name: Title | None = None
    default_team_access_groups: Groups = Field(default=[], validation_alias=DEFAULT_TEAM_GROUPS)
    default_team_credits: Credits = 0


class ChangeOrganization(Absent):
    """The body of PUT /organizations/{org_id}: what is left out stays."""

    name: Title | None = None
    metadata: dict[str, Any] | None = None


class SetOrganizationStatus(Absent):
    """The body of PUT /organizations/{org_id}/status."""

    status: Literal["active", "suspended", "paused"]
    reason: Description | None = None


class OrganizationOut(Answer):
    """An organization."""

    organization_id: str
    name: str
    status: TeamStatus
    metadata: Metadata
    team_count: Count
    total_credits_allocated: int
    created_at: Time
    updated_at: Time


class DefaultTeamOut(Answer):
    """The team made with an organization; both secrets are in this answer only."""

    team_id: str
    team_alias: str | None
    virtual_key: str
    callback_secret: str
    access_groups: list[str]
    model_groups: list[str]
    allowed_model_aliases: list[str]
    credits_allocated: Count


class NewOrganizationOut(OrganizationOut):
    """A new organization and its default team, if one was asked for."""

    default_team: DefaultTeamOut | None


class OrganizationDetailsOut(OrganizationOut):
    """An organization with its teams and what they used."""

    teams: list[str]
    usage_summary: UsageSummary


class ListedTeamOut(Answer):
    """A team in its organization's list."""

    team_id: str
    team_alias: str | None
    status: TeamStatus
    access_groups: list[str]
    credits_allocated: int
    credits_remaining: int


class OrganizationTeamsOut(Answer):
    """The teams of an organization; a team caller reads the details of itself only."""

    organization_id: str
    team_count: Count
    teams: list[str]
    team_details: list[ListedTeamOut]


class OrganizationStatusOut(Answer):
    """An organization whose status was set."""

    organization_id: str
    status: TeamStatus
    previous_status: TeamStatus
    updated_at: Time
    reason: str | None


class DeletedOrganizationOut(Answer):
    """An organization that is gone."""

    organization_id: str
    message: str
