"""POST /webhooks and /webhooks/register: a team's endpoint, its secret shown this once."""

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import AliasChoices, BaseModel, Field, field_validator

from api.auth import Caller
from api.http import endpoint
from api.once import Once
from api.wire.webhooks import WebhookCreatedOut
from shared import audit, credentials, egress, event_types, ids, webhook_endpoints
from shared.clock import iso
from shared.errors import BadRequest, Forbidden, Invalid, NotFound
from shared.runtime import Runtime

MAX_ENDPOINTS = 50
MAX_HEADERS = 10

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
PRINTABLE = re.compile(r"[\x20-\x7e]{1,500}")
RESERVED_PREFIXES = ("webhook-", "waybill-", "content-")
RESERVED = {
    "host", "authorization", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
    "proxy-authorization", "cookie",
}  # fmt: skip

NOT_YET: dict[str, tuple[Any, ...]] = {
    "signing": ("v1",),
    "payload": ("thin",),
    "verify": (False,),
    "ordered": (False,),
    "metadata": (None, {}),
    "timeout_s": (None,),
    "retry_schedule_s": (None,),
    "max_rate_per_s": (None,),
    "max_concurrency": (None,),
}
"""Documented fields of which this version knows these values only."""


class Register(BaseModel):
    """The request of both routes."""

    team_id: str
    webhook_url: Annotated[str, Field(validation_alias=AliasChoices("webhook_url", "url"))]
    events: Annotated[list[str], Field(min_length=1, max_length=50)] = list(event_types.JOB_DEFAULT)
    is_active: bool = True
    auth_header: str | None = None
    headers: Annotated[dict[str, str], Field(max_length=MAX_HEADERS)] = {}
    description: Annotated[str | None, Field(max_length=500)] = None
    signing: Literal["v1", "v1a", "both"] = "v1"
    payload: Literal["thin", "full"] = "thin"
    verify: bool = False
    ordered: bool = False
    metadata: dict[str, Any] | None = None
    timeout_s: float | None = None
    retry_schedule_s: list[float] | None = None
    max_rate_per_s: float | None = None
    max_concurrency: int | None = None

    @field_validator("auth_header")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value is not None and not PRINTABLE.fullmatch(value):
            raise ValueError("must be 1 to 500 printable ASCII characters")
        return value

    @field_validator("headers")
    @classmethod
    def _ours_are_ours(cls, value: dict[str, str]) -> dict[str, str]:
        for name, content in value.items():
            if name.lower() in RESERVED or name.lower().startswith(RESERVED_PREFIXES):
                raise ValueError("reserved header name")
            if not TOKEN.fullmatch(name) or not PRINTABLE.fullmatch(content):
                raise ValueError("header names are tokens, values 1 to 500 printable ASCII characters")
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("a header is given twice")
        return value


@endpoint("any:w", answers=WebhookCreatedOut)
async def register_webhook(rt: Runtime, caller: Caller, body: Register, once: Once) -> dict[str, Any]:
    """Register an endpoint. The URL is resolved before the transaction opens."""
    if not caller.may_see(body.team_id):
        raise Forbidden(f"API key does not belong to team '{body.team_id}'")
    _check_supported(body)
    try:
        await egress.accept(body.webhook_url, rt.settings.webhook_networks, http=rt.settings.webhook_http)
    except egress.UrlRefused as refused:
        raise BadRequest(f"webhook_url is not allowed: {refused.reason}") from None
    id_, secret = ids.new(), credentials.new_webhook_secret()
    headers = orjson.dumps(body.headers).decode() if body.headers else None
    async with rt.db.transaction() as tx:
        if not await webhook_endpoints.lock_team(tx, body.team_id):
            raise NotFound(f"Team '{body.team_id}' not found")
        if await webhook_endpoints.count(tx, body.team_id) >= MAX_ENDPOINTS:
            raise BadRequest("Too many webhooks")
        created = await webhook_endpoints.create(
            tx,
            id_,
            body.team_id,
            url=body.webhook_url,
            events=body.events,
            active=body.is_active,
            description=body.description,
            secret_sealed=rt.sealer.seal(secret, purpose=f"webhook_endpoints.secret:{id_}"),
            auth_header_sealed=_sealed(rt, body.auth_header, f"webhook_endpoints.auth_header:{id_}"),
            headers_sealed=_sealed(rt, headers, f"webhook_endpoints.headers:{id_}"),
        )
        await audit.record(tx, caller.actor, "created_webhook", "webhook", ids.prefixed("whe", id_))
        return await once.keep(tx, {**_shown(created, body), "secret": secret})


def _check_supported(body: Register) -> None:
    for name, known in NOT_YET.items():
        if getattr(body, name) not in known:
            raise Invalid.not_supported_yet("body", name)
    unknown = event_types.unknown(body.events)
    if unknown is not None:
        raise BadRequest(f"Unknown event type: {unknown[:100]}")
    for index, event in enumerate(body.events):
        if event in event_types.OPT_IN:
            raise Invalid.not_supported_yet("body", "events", index)


def _sealed(rt: Runtime, secret: str | None, purpose: str) -> bytes | None:
    return None if secret is None else rt.sealer.seal(secret, purpose=purpose)


def _shown(created: webhook_endpoints.Endpoint, body: Register) -> dict[str, Any]:
    """The endpoint object; of its own headers only the names."""
    id_ = ids.prefixed("whe", created.id)
    return {
        "webhook_id": id_,
        "id": id_,
        "team_id": created.team_id,
        "webhook_url": created.url,
        "url": created.url,
        "events": list(created.events),
        "is_active": created.status == "active",
        "status": created.status,
        "disabled_reason": created.disabled_reason,
        "description": created.description,
        "signing": created.signing,
        "has_auth_header": body.auth_header is not None,
        "header_names": sorted(body.headers),
        "failing_since": iso(created.failing_since),
        "last_status": created.last_status,
        "created_at": iso(created.created_at),
        "updated_at": iso(created.updated_at),
        "last_triggered_at": iso(created.last_triggered_at),
    }
