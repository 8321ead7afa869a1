"""Make a virtual key, stored as its hash, and set what it may do, in the caller's transaction."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from api.wire.key_bodies import CreateKey, KeyFields
from shared import budgets, key_secrets, keys, money
from shared.db import CoreTx, Tx
from shared.errors import BadRequest, Invalid
from shared.keys import OwnTerms
from shared.runtime import Runtime

MIN_KEY = 4
MIN_PRODUCTION_KEY = 16
TERMS = ("key_alias", "user_id", "models", "rpm_limit", "tpm_limit", "max_parallel_requests", "allowed_routes",
         "metadata", "blocked")  # fmt: skip
"""Fields of a key's body that are columns of the same name."""


def check_own(rt: Runtime, key: str, *, field: str = "virtual_key") -> None:
    """Refuse a key of one's own that is too short here, or that is the admin key. Raises Invalid."""
    shortest = MIN_PRODUCTION_KEY if rt.settings.env == "production" else MIN_KEY
    if len(key) < shortest:
        raise Invalid.at(["body", field], f"must have {shortest} characters or more", "value_error.too_short")
    if key_secrets.same(key, rt.settings.admin_key.get_secret_value()):
        raise Invalid.at(["body", field], "must not be the admin key", "value_error")


TEAMS_OWN = OwnTerms()
"""Of the key that is made with its team: all that the team may do."""


async def store(tx: CoreTx, team_id: str, key: str, terms: OwnTerms = TEAMS_OWN) -> UUID:
    """Store the key of a locked team. Raises BadRequest when it, or its alias, is another key's."""
    hash_, hint = key_secrets.key_hash(key), key_secrets.hint(key)
    key_id = await keys.create(tx, team_id, hash_=hash_, hint=hint, terms=terms)
    if key_id is not None:
        return key_id
    if terms.key_alias is not None and await keys.alias_owner(tx, terms.key_alias) is not None:
        raise alias_taken(terms.key_alias)
    raise BadRequest("Virtual key already exists", param="key")


def alias_taken(key_alias: str) -> BadRequest:
    """Another key has this alias."""
    return BadRequest(f"Key alias '{key_alias}' already exists", param="key_alias")


def terms_of(body: CreateKey, created_by: str) -> OwnTerms:
    """What the key may do less than its team."""
    return OwnTerms(**{name: getattr(body, name) for name in TERMS}, created_by=created_by, updated_by=created_by)


async def change(tx: CoreTx, key_id: UUID, columns: Mapping[str, Any]) -> None:
    """Set these columns of a locked key. Raises BadRequest when the alias is another key's."""
    try:
        await keys.change(tx, key_id, columns)
    except IntegrityError:
        raise alias_taken(columns["key_alias"]) from None


async def replace_secret(
    tx: CoreTx, team_id: str, key_id: UUID, *, replaced: tuple[bytes, str], grace_s: int, by: str
) -> tuple[str, datetime]:
    """Give a locked key another secret. Returns it, and when the replaced one ends.

    replaced: hash and hint as they were. Without a grace every secret the key ever had ends now.
    """
    hash_, hint = replaced
    secret = key_secrets.new_virtual_key()
    columns = {"hash": key_secrets.key_hash(secret), "hint": key_secrets.hint(secret), "updated_by": by}
    await keys.change(tx, key_id, columns)
    ends_at = await keys.keep_old_secret(tx, team_id, key_id, hash_=hash_, hint=hint, grace_s=grace_s)
    if not grace_s:
        await keys.end_old_secrets(tx, key_id)
    return secret, ends_at


def needs_budget(field: str, maximum: str) -> Invalid:
    """A field that says how a budget acts, without one."""
    return Invalid.at(["body", field], f"needs {maximum}", "value_error.no_budget")


async def set_expiry(tx: Tx, key_id: UUID, duration: str | None) -> None:
    """Let the key live so long from now; None: for ever."""
    length = None if duration is None else budgets.parse_duration(duration)
    months, seconds = (None, None) if length is None else (length.months, length.seconds)
    await keys.expire(tx, key_id, months=months, seconds=seconds)


async def change_budget(tx: Tx, key_id: UUID, body: KeyFields) -> None:
    """Set what was sent of the key's budget; what it spent goes on. Raises Invalid."""
    sent = body.model_fields_set
    if not sent & {"max_budget", "soft_budget", "budget_duration"}:
        return
    now = (await budgets.of_keys(tx, [key_id])).get(key_id)
    maximum, soft, duration = (now.max_nanousd, now.soft_nanousd, now.duration) if now else (None, None, None)
    if "max_budget" in sent:
        maximum = None if body.max_budget is None else money.nanousd(body.max_budget)
    if "soft_budget" in sent:
        soft = None if body.soft_budget is None else money.nanousd(body.soft_budget)
    if "budget_duration" in sent:
        duration = body.budget_duration
    for field in ("soft_budget", "budget_duration"):
        if maximum is None and getattr(body, field) is not None:
            raise needs_budget(field, "max_budget")
    await budgets.set_budget(tx, key_id=key_id, max_nanousd=maximum, soft_nanousd=soft, duration=duration)
