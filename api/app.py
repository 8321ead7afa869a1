"""The api: its route table tells the whole story; middleware and error handlers apply to every route."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import http
from api.auth import Authenticator
from api.desk import open_desk
from api.request_id import RequestId
from api.routes import calls, credits, health, jobs, models, organizations, teams, webhooks  # noqa: A004
from shared.runtime import Runtime

PREFIXES = ("/api", "/api/v1")
"""Every route below is served under both."""

ROOT: Sequence[tuple[str, str, http.Endpoint]] = (
    ("GET", "/health", health.health),
    ("GET", "/health/readiness", health.readiness),
    ("GET", "/health/liveness", health.liveness),
    ("GET", "/health/liveliness", health.liveness),
)

API: Sequence[tuple[str, str, http.Endpoint]] = (
    ("POST", "/jobs/create", jobs.create_job),
    ("GET", "/jobs/{job_id}", jobs.read_job),
    ("POST", "/jobs/{job_id}/complete", jobs.complete_job),
    ("POST", "/jobs/{job_id}/cancel", jobs.cancel_job),
    ("GET", "/jobs/{job_id}/costs", jobs.job_costs),
    ("POST", "/jobs/{job_id}/llm-call", calls.llm_call),
    ("GET", "/jobs/{job_id}/calls", calls.list_calls),
    ("GET", "/jobs/{job_id}/calls/{call_id}", calls.read_call),
    ("POST", "/jobs/{job_id}/calls/{call_id}/cancel", calls.cancel_call),
    ("POST", "/organizations/create", organizations.create_organization),
    ("GET", "/organizations/{org_id}", organizations.get_organization),
    ("POST", "/teams/create", teams.create_team),
    ("GET", "/teams/{team_id}", teams.get_team),
    ("POST", "/teams/{team_id}/suspend", teams.suspend_team),
    ("PUT", "/teams/{team_id}/suspend", teams.suspend_team),
    ("POST", "/teams/{team_id}/resume", teams.resume_team),
    ("PUT", "/teams/{team_id}/resume", teams.resume_team),
    ("GET", "/credits/balance", credits.get_balance),
    ("GET", "/credits/teams/{team_id}/balance", credits.get_team_balance),
    ("GET", "/teams/{team_id}/credits", credits.get_team_balance),
    ("POST", "/credits/add", credits.add_credits),
    ("POST", "/credits/teams/{team_id}/add", credits.add_team_credits),
    ("POST", "/teams/{team_id}/credits/allocate", credits.allocate_team_credits),
    ("GET", "/credits/transactions", credits.list_transactions),
    ("GET", "/credits/teams/{team_id}/transactions", credits.list_team_transactions),
    ("GET", "/teams/{team_id}/credits/transactions", credits.list_team_transactions),
    ("POST", "/model-aliases/create", models.create_alias),
    ("POST", "/models/create", models.create_alias),
    ("POST", "/models/aliases/create", models.create_alias),
    ("GET", "/model-aliases/{alias:path}", models.get_alias),
    ("GET", "/models/{alias:path}", models.get_alias),
    ("PUT", "/model-aliases/{alias:path}", models.change_alias),
    ("PUT", "/models/{alias:path}", models.change_alias),
    ("POST", "/model-access-groups/create", models.create_group),
    ("GET", "/model-access-groups/{group_name}", models.get_group),
    ("PUT", "/model-access-groups/{group_name}/models", models.set_group_models),
    ("POST", "/webhooks/register", webhooks.register_webhook),
    ("POST", "/webhooks", webhooks.register_webhook),
)

METHOD_NOT_ALLOWED = 405

CORS_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CORS_REQUEST_HEADERS = (
    "Authorization", "X-Admin-Key", "Idempotency-Key", "Prefer", "If-None-Match", "Last-Event-ID", "X-Request-ID",
    "X-Job-Id", "Content-Type",
)  # fmt: skip
CORS_EXPOSED = (
    "Location", "Retry-After", "ETag", "Link", "Preference-Applied", "X-Call-Id", "X-Job-Id", "X-Request-ID",
    "X-Total-Count", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit",
    "RateLimit-Policy", "Idempotent-Replayed", "WWW-Authenticate",
)  # fmt: skip


def create_app(rt: Runtime, api: Sequence[tuple[str, str, http.Endpoint]] = API) -> Starlette:
    """The ASGI application on an open runtime; its lifespan opens and closes the desk."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with open_desk(rt) as desk:
            app.state.desk = desk
            yield

    app = Starlette(
        routes=[*_routes("", ROOT), *(route for prefix in PREFIXES for route in _routes(prefix, api))],
        middleware=[
            Middleware(RequestId),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(rt.settings.allowed_hosts)),
            Middleware(
                CORSMiddleware,
                allow_origins=rt.settings.cors_origins,
                allow_methods=CORS_METHODS,
                allow_headers=CORS_REQUEST_HEADERS,
                expose_headers=CORS_EXPOSED,
                max_age=600,
            ),
        ],
        lifespan=lifespan,
        exception_handlers={Exception: _on_error, 404: _on_error, 405: _on_error},
    )
    app.router.redirect_slashes = False
    app.state.runtime = rt
    app.state.authenticator = Authenticator(rt.settings, rt.db)
    return app


def _routes(prefix: str, table: Sequence[tuple[str, str, http.Endpoint]]) -> list[Route]:
    return [Route(prefix + path, endpoint, methods=[method]) for method, path, endpoint in table]


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == METHOD_NOT_ALLOWED:
        error.headers = {"Allow": ", ".join(sorted(_methods_of(request)))}
    return http.failed(request, error)


def _methods_of(request: Request) -> set[str]:
    """All that this path takes: each method is a route of its own, and Starlette names those of the first only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {
        method for route in routes if route.path_regex.match(request.scope["path"]) for method in route.methods or ()
    }
