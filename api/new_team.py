"""Make a team with all that belongs to it, in the caller's transaction; for its own route and for organizations."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, StringConstraints
from sqlalchemy.exc import IntegrityError

from api.fields import MAX_CREDITS, Absent, AliasName, Credits, Id, Limit, Positive, Title, once
from shared import credentials, credit_accounts, keys, organizations, teams
from shared.db import Tx
from shared.errors import BadRequest, Invalid, NotFound
from shared.runtime import Runtime

BUDGET_MODES = ("job_based", "consumption_usd", "consumption_tokens")
LIMIT_MODES = ("hard", "soft", "unlimited")
MIN_PRODUCTION_KEY = 16

OwnKey = Annotated[str, StringConstraints(pattern=r"^sk-[\x21-\x7e]{1,252}$")]
GROUPS = AliasChoices("access_groups", "model_groups")


class CreateTeam(Absent):
    """The body of POST /teams/create."""

    organization_id: Id
    team_id: Id
    team_alias: Title | None = None
    access_groups: list[Id] = Field(default=[], validation_alias=GROUPS)
    credits_allocated: Credits = 0
    metadata: dict[str, Any] = Field(default={})
    budget_mode: str = "job_based"
    limit_mode: Literal["hard", "soft", "unlimited"] = "hard"
    credits_per_dollar: Decimal = Field(default=Decimal(10), gt=0, le=10**9, allow_inf_nan=False)
    tokens_per_credit: int = Field(default=10_000, ge=1, le=MAX_CREDITS)
    cost_markup_percentage: Decimal = Field(default=Decimal(0), ge=0, le=1000, allow_inf_nan=False)
    charge_failed_calls: bool = False
    default_model: AliasName | None = None
    rpm_limit: Limit | None = None
    tpm_limit: Limit | None = None
    max_parallel_calls: Positive | None = None
    max_queued_calls: Limit | None = None
    weight: int = Field(default=1, ge=1, le=100)
    store_payloads: bool = True
    credit_limit: Credits | None = None
    virtual_key: OwnKey | None = None


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What only the answer to the creation shows."""

    virtual_key: str
    callback_secret: str


def check(rt: Runtime, body: CreateTeam) -> None:
    """Refuse what this version or this installation does not take. Raises BadRequest, Invalid."""
    if body.budget_mode not in (*BUDGET_MODES, *LIMIT_MODES):
        raise BadRequest(f"Invalid budget_mode: {body.budget_mode}. Must be one of: {', '.join(BUDGET_MODES)}")
    later = {
        "budget_mode": body.budget_mode not in ("job_based", "hard"),
        "limit_mode": body.limit_mode != "hard",
        "credit_limit": body.credit_limit is not None,
        "max_parallel_calls": body.max_parallel_calls is not None,
        "max_queued_calls": body.max_queued_calls is not None,
        "store_payloads": not body.store_payloads,
    }
    for field, asked in later.items():
        if asked:
            raise Invalid.not_supported_yet("body", field)
    if body.virtual_key is not None:
        _check_own_key(rt, body.virtual_key)


async def create(rt: Runtime, tx: Tx, body: CreateTeam) -> Secrets:
    """The team with its account, groups, virtual key and callback secret. Raises NotFound, BadRequest."""
    made = Secrets(
        virtual_key=body.virtual_key or credentials.new_virtual_key(),
        callback_secret=credentials.new_webhook_secret(),
    )
    sealed = rt.sealer.seal(made.callback_secret, purpose=f"teams.callback_secret:{body.team_id}")
    if not await organizations.lock(tx, body.organization_id):
        raise NotFound(f"Organization '{body.organization_id}' not found")
    if not await teams.create(tx, body.team_id, **_columns(body), callback_secret_sealed=sealed):
        raise BadRequest(f"Team '{body.team_id}' already exists")
    await _hold_groups(tx, body.team_id, once(body.access_groups))
    await credit_accounts.open_account(tx, body.team_id, body.credits_allocated)
    await _create_key(tx, body.team_id, made.virtual_key)
    return made


async def _hold_groups(tx: Tx, team_id: str, groups: list[str]) -> None:
    there = await teams.set_access_groups(tx, team_id, groups)
    for group in groups:
        if group not in there:
            raise NotFound(f"Model access group '{group}' not found")


async def _create_key(tx: Tx, team_id: str, key: str) -> None:
    try:
        await keys.create(tx, team_id, hash_=credentials.key_hash(key), hint=credentials.hint(key))
    except IntegrityError:
        raise BadRequest("Virtual key already exists") from None


def _check_own_key(rt: Runtime, key: str) -> None:
    shortest = MIN_PRODUCTION_KEY if rt.settings.env == "production" else 4
    if len(key) < shortest:
        raise Invalid.at(["body", "virtual_key"], f"must have {shortest} characters or more", "value_error.too_short")
    if credentials.same(key, rt.settings.admin_key.get_secret_value()):
        raise Invalid.at(["body", "virtual_key"], "must not be the admin key", "value_error")


def _columns(body: CreateTeam) -> dict[str, Any]:
    same = (
        "organization_id", "team_alias", "metadata", "credits_per_dollar", "tokens_per_credit",
        "cost_markup_percentage", "charge_failed_calls", "default_model", "rpm_limit", "tpm_limit", "weight",
    )  # fmt: skip
    return {name: getattr(body, name) for name in same}
