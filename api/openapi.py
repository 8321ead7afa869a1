"""/openapi.json: made from the route table, so that it cannot say what the code does not do."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

from api import openapi_responses as responses
from api.openapi_routes import JSON, Documented, Tables, all_documented, contents
from api.openapi_samples import sample
from api.openapi_schemas import Schemas
from api.openapi_webhooks import callback, webhook
from api.wire.errors import Error, ValidationErrors
from api.wire.events import EVENTS
from api.wire.gateway_errors import GatewayError
from api.wire.jobs import JobIn
from api.wire.media import Media
from shared import callbacks
from shared.settings import VERSION

Schema = dict[str, Any]

ABOUT = """Waybill runs LLM calls as jobs: a thin HTTP API accepts them, workers run them, results are polled or pushed.

Every path under `/api` is served under `/api/v1` too. A team sends `Authorization: Bearer sk-…`, an admin
`X-Admin-Key` or the bearer token of a session. Errors are `{"detail": "…"}`; `HEAD` works where `GET` does.

The gateway speaks OpenAI's dialect: `/v1`, `/key`, `/user`, `/team` and `/spend`, each under `/olla/litellm` too (there
`/chat/completions`, `/completions`, `/embeddings` and `/models` also without `/v1`). Its errors are
`{"error": {"message", "type", "param", "code", "provider"}}`.
"""

TAGS = {
    "jobs": "The unit of work and of charge, and the calls it holds.",
    "teams": "Accounts that own credits and virtual keys.",
    "organizations": "Customers, each with one team or more.",
    "credits": "Balances, the ledger, refills.",
    "model-access-groups": "Ordered lists of aliases that teams hold.",
    "model-aliases": "Our public names of models, with prices and fallbacks.",
    "model-groups": "Access groups, under the name older clients know.",
    "provider-credentials": "The secrets we use with providers; never shown.",
    "events": "The event log: what happened, in order, behind one cursor.",
    "webhooks": "A team's endpoints for events, their keys, and what was delivered.",
    "admin-users": "Admins, their sessions, the audit log.",
    "stats": "Numbers for a dashboard.",
    "batches": "Many requests in one, run in the background.",
    "files": "What batches read and write.",
    "gateway": "What OpenAI's clients ask for: models, completions, embeddings.",
    "gateway-keys": "Keys, users, teams and spend, in the words of the LiteLLM proxy.",
    "health": "Whether this process can work, and numbers to watch it by.",
    "docs": "This document and its pages.",
}
OTHER_WORDS = {
    "models": "model-aliases", "admin": "admin-users", "openapi.json": "docs", "redoc": "docs", "static": "docs",
    "v1": "gateway", "olla": "health", "metrics": "health", "key": "gateway-keys", "user": "gateway-keys",
    "team": "gateway-keys", "spend": "gateway-keys",
}  # fmt: skip
"""The tag of paths that begin with another word."""

STATUS_TEXTS = {
    202: "Accepted; it goes on.",
    206: "The part that was asked for.",
    204: "Nothing more.",
    304: "Not modified.",
    401: "No credential, or one we do not know.",
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """The document as it is served."""

    body: bytes
    etag: str


@cache
def published(tables: Tables) -> Published:
    """The document of these tables, made once per process."""
    body = orjson.dumps(document(tables))
    return Published(body=body, etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@cache
def document(tables: Tables) -> Schema:
    """OpenAPI 3.1 of the routes of these tables."""
    routes = list(all_documented(tables))
    schemas = Schemas(_taken(routes), _answered(routes))
    paths: Schema = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schemas)
    used = {tag for path in paths.values() for operation in path.values() for tag in operation["tags"]}
    whole: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Waybill",
            "version": VERSION,
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in used],
        "paths": paths,
        "webhooks": {type_: {"post": webhook(type_, schemas.answered(event))} for type_, event in EVENTS.items()},
        "components": {
            "headers": responses.shared_headers(),
            "responses": responses.shared_refusals(),
            "securitySchemes": responses.SECURITY_SCHEMES,
        },
    }
    whole["components"]["schemas"] = schemas.components(whole)
    return whole


def _taken(routes: list[Documented]) -> Iterator[Any]:
    for route in routes:
        yield from (model for model in (route.body, route.query) if model is not None)
        yield from (form for form in route.forms.values() if _is_described(form))


def _answered(routes: list[Documented]) -> Iterator[Any]:
    yield from (Error, ValidationErrors, GatewayError, *EVENTS.values())
    for route in routes:
        yield from (type_ for answer in route.answers.values() for type_ in contents(answer) if _is_described(type_))


def _is_described(type_: Any) -> bool:
    return type_ is not None and not isinstance(type_, Media)


def _operation(route: Documented, schemas: Schemas) -> Schema:
    summary, description = route.words
    if route.same_as:
        description = f"Same as `{route.same_as}`. {description}"
    found: Schema = {
        "operationId": _operation_id(route),
        "tags": [_tag(route)],
        "summary": summary,
        "description": f"{description}\n\n{responses.CALLERS[route.given.access]}",
        "security": responses.security(route),
        "parameters": [
            *_path_parameters(route),
            *_query_parameters(route, schemas),
            *responses.header_parameters(route),
        ],
        "responses": {str(status): _response(route, status, type_, schemas) for status, type_ in route.answers.items()},
    }
    found["responses"] |= {str(status): responses.refusal(route, status) for status in route.refusals}
    if route.body is not None or route.forms:
        found["requestBody"] = _request_body(route, schemas)
    if route.has_callback:
        found["callbacks"] = _callbacks(route, schemas)
    return found


def _operation_id(route: Documented) -> str:
    """From method and path: they are what clients depend on, so it stays when handlers are renamed."""
    words = route.template.removeprefix("/api").replace("{", "by_").replace("}", "")
    return route.method.lower() + "".join(c if c.isalnum() else "_" for c in words)


def _tag(route: Documented) -> str:
    _, first, *others = route.path.removeprefix("/api").split("/")
    if first == "v1" and others[0] in TAGS:
        return others[0]
    return OTHER_WORDS.get(first, first)


def _path_parameters(route: Documented) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": responses.TEXT} for name in route.path_parameters]


def _query_parameters(route: Documented, schemas: Schemas) -> list[Schema]:
    return [] if route.query is None else schemas.query(route.query)


def _request_body(route: Documented, schemas: Schemas) -> Schema:
    """As the edge reads it: an empty body stands for `{}` where no field is required."""
    model, content = route.body, {}
    required = bool(route.forms)
    if model is not None:
        required = required or any(field.is_required() for field in model.model_fields.values())
        content[JSON] = {"schema": schemas.taken(model), "example": sample(route)}
    for media, form in route.forms.items():
        content[media] = _text(form) if isinstance(form, Media) else {"schema": schemas.taken(form)}
    return {"required": required, "content": content}


def _response(route: Documented, status: int, type_: Any, schemas: Schemas) -> Schema:
    found: Schema = {
        "description": STATUS_TEXTS.get(status, "Done." if route.method != "GET" else "As it stands."),
        "headers": responses.response_headers(route, status),
    }
    for one in contents(type_):
        if isinstance(one, Media):
            found.setdefault("content", {})[one.type] = _text(one)
        elif one is not None:
            found.setdefault("content", {})["application/json"] = {"schema": schemas.answered(one)}
        elif status not in {204, 304}:
            found["content"] = {"application/json": {"schema": {}}}
    return found


def _text(media: Media) -> Schema:
    return {"schema": {"type": "string"}, **({} if media.example is None else {"example": media.example})}


def _callbacks(route: Documented, schemas: Schemas) -> Schema:
    kind: callbacks.Kind = "batch" if route.makes_a_batch else "call"
    if route.body is not None and issubclass(route.body, JobIn):
        kind = "job"
    events = {"oneOf": [schemas.answered(EVENTS[type_]) for type_ in callbacks.ALLOWED[kind]]}
    return {"event": {"{$request.body#/callback_url}": {"post": callback(events)}}}
