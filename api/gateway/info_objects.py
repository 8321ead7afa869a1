"""Users and teams in the form of LiteLLM's answers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from shared import money
from shared.admin_users import User as AdminUser
from shared.clock import iso
from shared.credit_accounts import Balance
from shared.teams import Team
from shared.usage import Totals
from shared.users import User


class Person(NamedTuple):
    """Who has a user id: whom keys carry, an admin user, or both."""

    id: str
    user: User | None
    admin: AdminUser | None


def user(person: Person, keys: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The user with the keys that carry the id."""
    teams = [] if person.user is None else person.user.teams
    return {
        "user_id": person.id,
        "user_info": {
            "user_id": person.id,
            **_names(person.admin),
            "teams": [team.id for team in teams],
            "max_budget": None,
            "spend": 0.0 if person.user is None else money.usd(person.user.spent_nanousd),
            "models": [],
            "metadata": {},
            "tpm_limit": None,
            "rpm_limit": None,
            "created_at": iso(_made_at(person)),
        },
        "keys": keys,
        "teams": [
            {"team_id": team.id, "team_alias": team.team_alias, "organization_id": team.organization_id}
            for team in teams
        ],
    }


def team(found: Team, account: Balance, used: Totals, keys: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The team with its newest keys; nobody is a member of a team here."""
    return {
        "team_id": found.id,
        "team_info": {
            "team_id": found.id,
            "team_alias": found.team_alias,
            "organization_id": found.organization_id,
            "spend": money.usd(used.total_cost_nanousd),
            "max_budget": None if found.max_nanousd is None else money.usd(found.max_nanousd),
            "tpm_limit": found.tpm_limit,
            "rpm_limit": found.rpm_limit,
            "models": found.aliases,
            "metadata": found.metadata,
            "blocked": found.status == "suspended",
            "members_with_roles": [],
            "admins": [],
            "members": [],
            "credits_remaining": account.remaining,
            "created_at": iso(found.created_at),
        },
        "keys": keys,
        "team_memberships": [],
    }


def _names(admin: AdminUser | None) -> dict[str, Any]:
    if admin is None:
        return {"user_alias": None, "user_email": None, "user_role": "internal_user"}
    role = "proxy_admin_viewer" if admin.role == "user" else "proxy_admin"
    return {"user_alias": admin.display_name, "user_email": admin.email, "user_role": role}


def _made_at(person: Person) -> Any:
    return min(found.created_at for found in (person.user, person.admin) if found is not None)
