"""Provider credentials: an organization's keys for providers. A key is sealed when it comes and never shown again."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints
from starlette.requests import Request

from api.access import parse_id
from api.auth import Caller
from api.fields import Absent, Id, Title
from api.http import endpoint
from api.lists import Page, next_link
from api.model_bodies import ApiKey, check_api_base, check_provider
from api.once import Once
from api.replies import Reply
from api.wire.models import CredentialOut, DeletedCredentialOut, SwitchedCredentialOut
from shared import audit, ids, names, organizations, provider_credentials
from shared.clock import iso
from shared.db import Tx
from shared.errors import BadRequest, NotFound
from shared.key_secrets import MIN_HINT_LENGTH
from shared.provider_credentials import ActiveExists, Credential, NameTaken
from shared.runtime import Runtime
from shared.sealed_columns import CREDENTIAL_KEY

KIND = "provider_credential"
TAKEN = (
    "Cannot activate: organization already has an active credential for this provider. Deactivate the other one first."
)
Author = Annotated[str, StringConstraints(max_length=255)]


class CreateCredential(Absent):
    """The body of POST /provider-credentials/create."""

    organization_id: Id
    provider: str
    api_key: ApiKey
    credential_name: Title
    api_base: str | None = None
    created_by: Author | None = None


class ChangeCredential(BaseModel):
    """The body of PUT /provider-credentials/{credential_id}: fields left out stay, as do those that are null.

    `api_base` null is the provider's own URL.
    """

    api_key: ApiKey | None = None
    api_base: str | None = None
    credential_name: Title | None = None
    is_active: bool | None = None
    updated_by: Author | None = None


class OfOrganization(Page):
    """A page of an organization's credentials."""

    active_only: bool = True


class CredentialsQuery(OfOrganization):
    """A page of credentials."""

    organization_id: Annotated[str, Field(max_length=255)] | None = None
    provider: str | None = None


@endpoint("admin:r", answers=list[CredentialOut])
async def list_credentials(rt: Runtime, request: Request, query: CredentialsQuery) -> Reply:
    """The credentials of all organizations, newest first."""
    if query.provider is not None:
        check_provider(query.provider)
    async with rt.db.statement() as tx:
        return await _listed(tx, request, query, query.organization_id, query.provider)


@endpoint("admin:w", answers=CredentialOut)
async def create_credential(rt: Runtime, caller: Caller, body: CreateCredential, once: Once) -> dict[str, Any]:
    """A new credential, active from the start."""
    check_provider(body.provider)
    if body.api_base is not None:
        await check_api_base(rt, body.api_base)
    id_ = ids.new()
    columns = {
        "id": id_,
        **body.model_dump(include={"organization_id", "provider", "credential_name", "api_base"}),
        **_key_columns(rt, str(id_), body.api_key),
        "created_by": body.created_by or (caller.admin and caller.admin.user_id),
    }
    try:
        async with rt.db.transaction() as tx:
            if not await organizations.keep(tx, body.organization_id):
                raise NotFound(f"Organization '{body.organization_id}' not found")
            await provider_credentials.create(tx, columns)
            await _record(tx, caller, "created", str(id_), provider=body.provider, organization=body.organization_id)
            return await once.keep(tx, _shown(await _credential(tx, str(id_))))
    except ActiveExists:
        raise _active_exists(body.organization_id, body.provider) from None
    except NameTaken:
        raise _name_taken(body.organization_id, body.credential_name) from None


@endpoint("admin:r", answers=CredentialOut)
async def get_credential(rt: Runtime, credential_id: str) -> dict[str, Any]:
    """The credential without its key, whatever the query asks for."""
    async with rt.db.statement() as tx:
        return _shown(await _credential(tx, credential_id))


@endpoint("admin:r", answers=list[CredentialOut])
async def list_of_organization(rt: Runtime, request: Request, org_id: str, query: OfOrganization) -> Reply:
    """The credentials of one organization, newest first."""
    async with rt.db.statement() as tx:
        await _check_organization(tx, org_id)
        return await _listed(tx, request, query, org_id, None)


@endpoint("admin:r", answers=list[CredentialOut])
async def list_of_provider(rt: Runtime, request: Request, org_id: str, provider: str, query: Page) -> Reply:
    """The organization's active credential for a provider, in a list."""
    async with rt.db.statement() as tx:
        await _check_organization(tx, org_id)
        known = OfOrganization(limit=query.limit, offset=query.offset)
        found = await _listed(tx, request, known, org_id, provider.replace("\x00", ""))
    if found.headers["X-Total-Count"] == "0":
        raise NotFound(f"No active credential found for organization '{org_id}' and provider '{provider}'")
    return found


@endpoint("admin:w", answers=CredentialOut)
async def change_credential(rt: Runtime, caller: Caller, credential_id: str, body: ChangeCredential) -> dict[str, Any]:
    """Change the fields given; a new key replaces the old one at the next attempt."""
    if body.api_base is not None:
        await check_api_base(rt, body.api_base)
    given = body.model_fields_set
    columns = body.model_dump(include={"credential_name", "is_active", "updated_by"}, exclude_none=True)
    if "api_base" in given:
        columns["api_base"] = body.api_base
    if body.api_key is not None:
        columns |= _key_columns(rt, str(parse_id(credential_id, _unknown(credential_id))), body.api_key)
    found = await _changed(rt, caller, credential_id, columns, "updated", fields=sorted(given))
    return _shown(found)


@endpoint("admin:w", answers=SwitchedCredentialOut)
async def activate_credential(rt: Runtime, caller: Caller, credential_id: str) -> dict[str, Any]:
    """Make it the one its organization uses with the provider."""
    found = await _changed(rt, caller, credential_id, {"is_active": True}, "activated")
    return {**_shown(found), "message": "Provider credential activated successfully"}


@endpoint("admin:w", answers=SwitchedCredentialOut)
async def deactivate_credential(rt: Runtime, caller: Caller, credential_id: str) -> dict[str, Any]:
    """Make room for another one; aliases that name it go on using it."""
    found = await _changed(rt, caller, credential_id, {"is_active": False}, "deactivated")
    return {**_shown(found), "message": "Provider credential deactivated successfully"}


@endpoint("admin:w", answers=DeletedCredentialOut)
async def delete_credential(rt: Runtime, caller: Caller, credential_id: str) -> dict[str, Any]:
    """Delete it with its key."""
    async with rt.db.transaction() as tx:
        found = await _credential(tx, credential_id, lock=True)
        await provider_credentials.remove(tx, found.id)
        await _record(tx, caller, "deleted", credential_id, provider=found.provider, organization=found.organization_id)
    return {"credential_id": str(found.id), "message": "Provider credential deleted successfully"}


async def _changed(
    rt: Runtime, caller: Caller, credential_id: str, columns: dict[str, Any], verb: str, **details: Any
) -> Credential:
    try:
        async with rt.db.transaction() as tx:
            found = await _credential(tx, credential_id, lock=True)
            await provider_credentials.change(tx, found.id, columns)
            await _record(tx, caller, verb, credential_id, **details)
            return await _credential(tx, credential_id)
    except ActiveExists:
        refused = BadRequest(TAKEN) if verb == "activated" else _active_exists(found.organization_id, found.provider)
        raise refused from None
    except NameTaken:
        raise _name_taken(found.organization_id, columns["credential_name"]) from None


def _key_columns(rt: Runtime, credential_id: str, api_key: str) -> dict[str, Any]:
    """The key as it is stored, and the end of it for people to tell it by."""
    shown = api_key[-4:] if len(api_key) >= MIN_HINT_LENGTH else ""
    sealed = rt.sealer.seal(api_key, purpose=CREDENTIAL_KEY.purpose(credential_id))
    return {"api_key_sealed": sealed, "key_hint": f"...{shown}"}


async def _credential(tx: Tx, credential_id: str, *, lock: bool = False) -> Credential:
    id_ = parse_id(credential_id, _unknown(credential_id))
    found = await (provider_credentials.lock(tx, id_) if lock else provider_credentials.get(tx, id_))
    if found is None:
        raise NotFound(_unknown(credential_id))
    return found


def _unknown(credential_id: str) -> str:
    return f"Provider credential '{credential_id}' not found"


def _active_exists(organization_id: str, provider: str) -> BadRequest:
    return BadRequest(
        f"Organization '{organization_id}' already has an active credential for provider '{provider}'. "
        "Deactivate the existing one first or update it."
    )


def _name_taken(organization_id: str, name: str) -> BadRequest:
    return BadRequest(f"Credential name '{name}' already exists in organization '{organization_id}'")


async def _check_organization(tx: Tx, organization_id: str) -> None:
    if not names.is_name(organization_id) or await organizations.get(tx, organization_id) is None:
        raise NotFound(f"Organization '{organization_id}' not found")


async def _record(tx: Tx, caller: Caller, verb: str, credential_id: str, **details: Any) -> None:
    await audit.record(tx, caller.admin, f"{verb}_{KIND}", KIND, credential_id, details)


async def _listed(
    tx: Tx, request: Request, query: OfOrganization, organization_id: str | None, provider: str | None
) -> Reply:
    page, total = await provider_credentials.page(
        tx,
        organization_id=organization_id,
        provider=provider,
        active_only=query.active_only,
        limit=query.limit,
        offset=query.offset,
    )
    headers = {"X-Total-Count": str(total), **next_link(request, query, total)}
    return Reply(body=[_shown(found) for found in page], headers=headers)


def _shown(found: Credential) -> dict[str, Any]:
    return {
        "credential_id": str(found.id),
        "organization_id": found.organization_id,
        "provider": found.provider,
        "credential_name": found.credential_name,
        "api_base": found.api_base,
        "is_active": found.is_active,
        "has_api_key": True,
        "key_hint": found.key_hint,
        "created_by": found.created_by,
        "created_at": iso(found.created_at),
        "updated_at": iso(found.updated_at),
    }
