"""Make a team with all that belongs to it, in the caller's transaction; for its own route and for organizations."""

from dataclasses import dataclass
from typing import Any

from api import new_key, team_objects
from api.wire.team_bodies import CreateTeam
from shared import audit, budgets, credit_accounts, key_secrets, money, organizations, signing, teams
from shared.audit import Admin
from shared.db import CoreTx
from shared.errors import BadRequest
from shared.runtime import Runtime

BUDGET_MODES = ("job_based", "consumption_usd", "consumption_tokens")
LIMIT_MODES = ("hard", "soft", "unlimited")
COLUMNS = (
    "team_alias", "metadata", "credits_per_dollar", "tokens_per_credit", "cost_markup_percentage",
    "charge_failed_calls", "default_model", "rpm_limit", "tpm_limit", "max_parallel_calls", "max_queued_calls",
    "weight", "store_payloads",
)  # fmt: skip
"""Fields of a team's body that are columns of the same name."""


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What only the answer to the creation shows."""

    virtual_key: str
    callback_secret: str


@dataclass(frozen=True, kw_only=True)
class Modes:
    """How a team is charged and how its limit acts; None: not said."""

    budget: str | None
    limit: str | None


def modes(budget_mode: str | None, limit_mode: str | None) -> Modes:
    """The two modes; a limit's word is also taken as budget_mode. Raises BadRequest for any other word."""
    if budget_mode in LIMIT_MODES:
        return Modes(budget=None, limit=limit_mode or budget_mode)
    if budget_mode is not None and budget_mode not in BUDGET_MODES:
        raise BadRequest(f"Invalid budget_mode: {budget_mode[:100]}. Must be one of: {', '.join(BUDGET_MODES)}")
    return Modes(budget=budget_mode, limit=limit_mode)


def check(rt: Runtime, body: CreateTeam) -> None:
    """Refuse what no team, or no team of this installation, can have. Raises BadRequest, Invalid."""
    modes(body.budget_mode, body.limit_mode)
    if body.virtual_key is not None:
        new_key.check_own(rt, body.virtual_key)
    if body.budget_duration is not None and body.max_budget_usd is None:
        raise new_key.needs_budget("budget_duration", "max_budget_usd")


async def create(rt: Runtime, tx: CoreTx, body: CreateTeam, by: Admin | None) -> Secrets:
    """The team with its account, groups, budget, virtual key and callback secret. Raises NotFound, BadRequest."""
    made = Secrets(
        virtual_key=body.virtual_key or key_secrets.new_virtual_key(),
        callback_secret=signing.new_webhook_secret(),
    )
    sealed = rt.sealer.seal(made.callback_secret, purpose=f"teams.callback_secret:{body.team_id}")
    asked = modes(body.budget_mode, body.limit_mode)
    if not await organizations.keep(tx, body.organization_id):
        raise team_objects.no_organization(body.organization_id)
    columns: dict[str, Any] = {name: getattr(body, name) for name in COLUMNS}
    columns |= {"organization_id": body.organization_id, "budget_mode": asked.budget or "job_based"}
    if not await teams.create(tx, body.team_id, **columns, callback_secret_sealed=sealed):
        raise BadRequest(f"Team '{body.team_id}' already exists")
    await team_objects.hold_groups(tx, body.team_id, body.access_groups)
    limits = {"limit_mode": asked.limit or "hard", "credit_limit": body.credit_limit}
    await credit_accounts.open_account(tx, body.team_id, body.credits_allocated, **limits)
    if body.max_budget_usd is not None:
        nanousd = money.nanousd(body.max_budget_usd)
        await budgets.set_budget(tx, team_id=body.team_id, max_nanousd=nanousd, duration=body.budget_duration)
    await new_key.store(tx, body.team_id, made.virtual_key)
    details = body.model_dump(mode="json", exclude_unset=True, exclude={"virtual_key"})
    await audit.record(tx, by, "created_team", "team", body.team_id, details)
    return made
