"""The api: its route table tells the whole story; middleware and error handlers apply to every route."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import http
from api.auth import Authenticator
from api.cors import EXPOSED, METHODS, REQUEST_HEADERS, Cors
from api.desk import open_desk
from api.gateway.dress import Dress
from api.gateway.face import face_of
from api.gateway.model_health import ModelHealth
from api.gateway.paths import PREFIX, without_v1
from api.hosts import Hosts
from api.metrics import Metrics
from api.openapi import published
from api.request_id import RequestId
from api.routes import (
    access_groups,
    admin_sessions,
    admin_users,
    audit,
    batch_changes,
    batch_results,
    batches,
    calls,
    credentials,
    credit_grants,
    credit_reports,
    credit_terms,
    credits,  # noqa: A004 - the word of the product
    deliveries,
    docs,
    event_types,
    events,
    files,
    gateway_calls,
    gateway_health,
    gateway_info,
    gateway_keys,
    gateway_models,
    health,
    job_lists,
    jobs,
    keys,
    metrics,
    model_groups,
    models,
    organizations,
    replays,
    stats,
    streams,
    team_terms,
    teams,
    usage,
    webhook_health,
    webhook_keys,
    webhook_tests,
    webhooks,
)
from shared.runtime import Runtime

PREFIXES = ("/api", "/api/v1")
"""Every route of API is served under both."""

HEALTH: Sequence[tuple[str, str, http.Endpoint]] = (
    ("GET", "/health/readiness", health.readiness),
    ("GET", "/health/liveness", health.liveness),
    ("GET", "/health/liveliness", health.liveness),
)
"""Under the gateway's prefix as well."""

ROOT: Sequence[tuple[str, str, http.Endpoint]] = (
    ("GET", "/health", health.health),
    ("GET", "/health/db", health.database),
    *HEALTH,
    ("GET", "/metrics", metrics.read_metrics),
    ("GET", "/openapi.json", docs.openapi_json),
    ("GET", "/docs", docs.swagger_page),
    ("GET", "/redoc", docs.redoc_page),
    ("GET", "/static/{digest}/{name}", docs.static_file),
)

API: Sequence[tuple[str, str, http.Endpoint]] = (
    ("POST", "/jobs/create", jobs.create_job),
    ("POST", "/jobs/create-and-call", streams.create_and_call),
    ("POST", "/jobs/create-and-call-stream", streams.create_and_call_stream),
    ("GET", "/jobs", job_lists.list_jobs),
    ("GET", "/jobs/teams/{team_id}", job_lists.list_job_summaries),
    ("GET", "/jobs/teams/{team_id}/{job_id}", job_lists.look_into_job),
    ("GET", "/jobs/organizations/{org_id}/stats", stats.organization_stats),
    ("GET", "/jobs/organizations/{org_id}/analytics", stats.organization_analytics),
    ("GET", "/jobs/{job_id}", jobs.read_job),
    ("POST", "/jobs/{job_id}/complete", jobs.complete_job),
    ("POST", "/jobs/{job_id}/cancel", jobs.cancel_job),
    ("GET", "/jobs/{job_id}/costs", jobs.job_costs),
    ("GET", "/jobs/{job_id}/events", events.list_job_events),
    ("PATCH", "/jobs/{job_id}/metadata", jobs.patch_metadata),
    ("POST", "/jobs/{job_id}/llm-call", calls.llm_call),
    ("POST", "/jobs/{job_id}/llm-call-stream", streams.llm_call_stream),
    ("GET", "/jobs/{job_id}/calls", calls.list_calls),
    ("GET", "/jobs/{job_id}/calls/{call_id}", calls.read_call),
    ("GET", "/jobs/{job_id}/calls/{call_id}/stream", streams.call_stream),
    ("POST", "/jobs/{job_id}/calls/{call_id}/cancel", calls.cancel_call),
    ("POST", "/organizations/create", organizations.create_organization),
    ("GET", "/organizations", organizations.list_organizations),
    ("GET", "/organizations/{org_id}", organizations.get_organization),
    ("GET", "/organizations/{org_id}/usage", usage.organization_usage),
    ("GET", "/organizations/{org_id}/costs", usage.organization_costs),
    ("PUT", "/organizations/{org_id}", organizations.change_organization),
    ("DELETE", "/organizations/{org_id}", organizations.delete_organization),
    ("GET", "/organizations/{org_id}/teams", organizations.list_organization_teams),
    ("PUT", "/organizations/{org_id}/status", organizations.set_organization_status),
    ("POST", "/teams/create", teams.create_team),
    ("GET", "/teams", teams.list_teams),
    ("GET", "/teams/verify", teams.verify_key),
    ("GET", "/teams/{team_id}", teams.get_team),
    ("GET", "/teams/{team_id}/jobs", job_lists.list_team_jobs),
    ("GET", "/teams/{team_id}/usage", usage.team_usage),
    ("PUT", "/teams/{team_id}", teams.change_team),
    ("PATCH", "/teams/{team_id}", teams.change_team),
    ("DELETE", "/teams/{team_id}", teams.delete_team),
    ("POST", "/teams/{team_id}/suspend", team_terms.suspend_team),
    ("PUT", "/teams/{team_id}/suspend", team_terms.suspend_team),
    ("POST", "/teams/{team_id}/resume", team_terms.resume_team),
    ("PUT", "/teams/{team_id}/resume", team_terms.resume_team),
    ("POST", "/teams/{team_id}/pause", team_terms.pause_team),
    ("PUT", "/teams/{team_id}/pause", team_terms.pause_team),
    ("PUT", "/teams/{team_id}/access-groups", team_terms.set_access_groups),
    ("PUT", "/teams/{team_id}/model-groups", team_terms.set_model_groups),
    ("PATCH", "/teams/{team_id}/markup", team_terms.set_markup),
    ("POST", "/teams/{team_id}/rotate-key", keys.rotate_team_key),
    ("GET", "/teams/{team_id}/keys", keys.list_keys),
    ("POST", "/teams/{team_id}/keys", keys.create_key),
    ("GET", "/teams/{team_id}/keys/{key_id}", keys.get_key),
    ("PATCH", "/teams/{team_id}/keys/{key_id}", keys.change_key),
    ("DELETE", "/teams/{team_id}/keys/{key_id}", keys.revoke_key),
    ("POST", "/teams/{team_id}/keys/{key_id}/rotate", keys.rotate_key),
    ("GET", "/credits/balance", credits.get_balance),
    ("GET", "/credits/teams/{team_id}/balance", credits.get_team_balance),
    ("GET", "/teams/{team_id}/credits", credits.get_team_balance),
    ("POST", "/credits/add", credit_grants.add_credits),
    ("POST", "/credits/teams/{team_id}/add", credit_grants.add_team_credits),
    ("POST", "/teams/{team_id}/credits/allocate", credit_grants.allocate_team_credits),
    ("GET", "/credits/transactions", credits.list_transactions),
    ("GET", "/credits/teams/{team_id}/transactions", credits.list_team_transactions),
    ("GET", "/teams/{team_id}/credits/transactions", credits.list_team_transactions),
    ("POST", "/credits/teams/{team_id}/check", credits.check_credits),
    ("POST", "/credits/teams/{team_id}/replenish", credit_grants.replenish),
    ("POST", "/credits/teams/{team_id}/configure-auto-refill", credit_grants.configure_auto_refill),
    ("POST", "/credits/teams/{team_id}/refund", credit_grants.refund),
    ("GET", "/credits/teams/{team_id}/conversion-rates", credit_terms.get_rates),
    ("PATCH", "/credits/teams/{team_id}/conversion-rates", credit_terms.change_rates),
    ("PATCH", "/credits/teams/{team_id}/budget-mode", credit_terms.change_budget_mode),
    ("GET", "/credits/utilization", credit_reports.get_utilization),
    ("GET", "/credits/trends", credit_reports.get_trends),
    ("POST", "/model-aliases/create", models.create_alias),
    ("POST", "/models/create", models.create_alias),
    ("POST", "/models/aliases/create", models.create_alias),
    ("GET", "/model-aliases", models.list_aliases),
    ("GET", "/models", models.list_aliases),
    ("GET", "/model-aliases/{alias:path}", models.get_alias),
    ("GET", "/models/{alias:path}", models.get_alias),
    ("PUT", "/model-aliases/{alias:path}", models.change_alias),
    ("PUT", "/models/{alias:path}", models.change_alias),
    ("DELETE", "/model-aliases/{alias:path}", models.delete_alias),
    ("DELETE", "/models/{alias:path}", models.delete_alias),
    ("POST", "/model-access-groups/create", access_groups.create_group),
    ("GET", "/model-access-groups", access_groups.list_groups),
    ("GET", "/model-access-groups/{group_name}", access_groups.get_group),
    ("PUT", "/model-access-groups/{group_name}", access_groups.change_group),
    ("DELETE", "/model-access-groups/{group_name}", access_groups.delete_group),
    ("PUT", "/model-access-groups/{group_name}/models", access_groups.set_group_models),
    ("POST", "/model-access-groups/{group_name}/add-models", access_groups.add_group_models),
    ("POST", "/model-access-groups/{group_name}/remove-models", access_groups.remove_group_models),
    ("POST", "/model-groups/create", model_groups.create_model_group),
    ("GET", "/model-groups", model_groups.list_model_groups),
    ("GET", "/model-groups/{group_name}", model_groups.get_model_group),
    ("DELETE", "/model-groups/{group_name}", model_groups.delete_model_group),
    ("PUT", "/model-groups/{group_name}/models", model_groups.set_models),
    ("GET", "/model-groups/{group_name}/resolve", model_groups.resolve_model_group),
    ("GET", "/provider-credentials", credentials.list_credentials),
    ("POST", "/provider-credentials/create", credentials.create_credential),
    ("GET", "/provider-credentials/organization/{org_id}", credentials.list_of_organization),
    ("GET", "/provider-credentials/organization/{org_id}/provider/{provider}", credentials.list_of_provider),
    ("GET", "/provider-credentials/{credential_id}", credentials.get_credential),
    ("PUT", "/provider-credentials/{credential_id}", credentials.change_credential),
    ("DELETE", "/provider-credentials/{credential_id}", credentials.delete_credential),
    ("PUT", "/provider-credentials/{credential_id}/activate", credentials.activate_credential),
    ("PUT", "/provider-credentials/{credential_id}/deactivate", credentials.deactivate_credential),
    ("GET", "/admin-users/setup/status", admin_sessions.setup_status),
    ("POST", "/admin-users/setup", admin_sessions.setup),
    ("POST", "/admin-users/login", admin_sessions.login),
    ("POST", "/admin/login", admin_sessions.login),
    ("POST", "/admin-users/logout", admin_sessions.logout),
    ("GET", "/admin-users/me", admin_sessions.me),
    ("POST", "/admin-users/me/change-password", admin_sessions.change_own_password),
    ("PUT", "/admin-users/password", admin_sessions.change_own_password),
    ("GET", "/admin-users/audit-logs", audit.list_audit_logs),
    ("GET", "/admin-users", admin_users.list_users),
    ("POST", "/admin-users", admin_users.create_user),
    ("GET", "/admin-users/{user_id}", admin_users.get_user),
    ("PUT", "/admin-users/{user_id}", admin_users.update_user),
    ("DELETE", "/admin-users/{user_id}", admin_users.delete_user),
    ("PUT", "/admin-users/{user_id}/activate", admin_users.activate_user),
    ("PUT", "/admin-users/{user_id}/deactivate", admin_users.deactivate_user),
    ("POST", "/admin-users/{user_id}/change-password", admin_users.reset_password),
    ("PUT", "/admin-users/{user_id}/reset-password", admin_users.reset_password),
    ("GET", "/stats/dashboard", stats.read_dashboard),
    ("GET", "/events", events.list_events),
    ("GET", "/events/{event_id}", events.get_event),
    ("POST", "/events/{event_id}/expunge", events.expunge_event),
    ("POST", "/webhooks/register", webhooks.register_webhook),
    ("POST", "/webhooks", webhooks.register_webhook),
    ("GET", "/webhooks", webhooks.list_webhooks),
    ("GET", "/webhooks/event-types", event_types.list_event_types),
    ("GET", "/webhooks/health", webhook_health.read_webhook_health),
    ("POST", "/webhooks/callback-secret/rotate", webhook_keys.rotate_callback_secret),
    ("GET", "/webhooks/deliveries", deliveries.list_deliveries),
    ("GET", "/webhooks/deliveries/{delivery_id}", deliveries.read_delivery),
    ("POST", "/webhooks/deliveries/{delivery_id}/retry", deliveries.retry_delivery),
    ("POST", "/webhooks/deliveries/{delivery_id}/cancel", deliveries.cancel_delivery),
    ("GET", "/webhooks/replays/{replay_id}", replays.read_replay),
    ("POST", "/webhooks/replays/{replay_id}/cancel", replays.cancel_replay),
    ("GET", "/webhooks/{webhook_id}", webhooks.get_webhook),
    ("PUT", "/webhooks/{webhook_id}", webhooks.change_webhook),
    ("PATCH", "/webhooks/{webhook_id}", webhooks.change_webhook),
    ("DELETE", "/webhooks/{webhook_id}", webhooks.delete_webhook),
    ("POST", "/webhooks/{webhook_id}/enable", webhooks.enable_webhook),
    ("POST", "/webhooks/{webhook_id}/disable", webhooks.disable_webhook),
    ("POST", "/webhooks/{webhook_id}/test", webhook_tests.send_test),
    ("GET", "/webhooks/{webhook_id}/stats", webhook_tests.get_stats),
    ("GET", "/webhooks/{webhook_id}/missed", events.list_missed),
    ("GET", "/webhooks/{webhook_id}/deliveries", deliveries.list_endpoint_deliveries),
    ("GET", "/webhooks/{webhook_id}/replays", replays.list_replays),
    ("POST", "/webhooks/{webhook_id}/replay", replays.replay_events),
    ("POST", "/webhooks/{webhook_id}/recover", replays.recover_endpoint),
    ("POST", "/webhooks/{webhook_id}/rotate-secret", webhook_keys.rotate_secret),
    ("GET", "/webhooks/{webhook_id}/secrets", webhook_keys.list_secrets),
    ("DELETE", "/webhooks/{webhook_id}/secrets/{secret_id}", webhook_keys.revoke_secret),
    ("GET", "/webhooks/{webhook_id}/jwks.json", webhook_keys.jwks),
)

GATEWAY: Sequence[tuple[str, str, http.Endpoint]] = (
    ("POST", "/v1/chat/completions", gateway_calls.chat_completions),
    ("POST", "/v1/completions", gateway_calls.completions),
    ("POST", "/v1/embeddings", gateway_calls.embeddings),
    ("GET", "/v1/models", gateway_models.list_models),
    ("GET", "/v1/models/{model:path}", gateway_models.get_model),
    ("POST", "/v1/batches", batches.create_batch),
    ("GET", "/v1/batches", batches.list_batches),
    ("GET", "/v1/batches/{batch_id}", batches.get_batch),
    ("POST", "/v1/batches/{batch_id}/cancel", batch_changes.cancel_batch),
    ("POST", "/v1/batches/{batch_id}/retry", batch_changes.retry_batch),
    ("POST", "/v1/files", files.create_file),
    ("GET", "/v1/files", files.list_files),
    ("GET", "/v1/files/{file_id}", files.read_file),
    ("GET", "/v1/files/{file_id}/content", files.read_file_content),
    ("DELETE", "/v1/files/{file_id}", files.delete_file),
    ("GET", "/v1/batches/{batch_id}/results", batch_results.list_results),
    ("POST", "/key/generate", gateway_keys.key_generate),
    ("GET", "/key/info", gateway_keys.key_info),
    ("POST", "/key/update", gateway_keys.key_update),
    ("POST", "/key/delete", gateway_keys.key_delete),
    ("POST", "/key/block", gateway_keys.key_block),
    ("POST", "/key/unblock", gateway_keys.key_unblock),
    ("POST", "/key/regenerate", gateway_keys.key_regenerate),
    ("GET", "/key/list", gateway_keys.key_list),
    ("GET", "/user/info", gateway_info.user_info),
    ("GET", "/team/info", gateway_info.team_info),
    ("GET", "/spend/calculate", gateway_info.spend_calculate_get),
    ("POST", "/spend/calculate", gateway_info.spend_calculate_post),
)

GATEWAY_HEALTH: Sequence[tuple[str, str, http.Endpoint]] = (("GET", "/health", gateway_health.gateway_health),)

TABLES: tuple[tuple[str, Sequence[tuple[str, str, http.Endpoint]]], ...] = (
    ("", ROOT),
    ("", GATEWAY),
    (PREFIX, GATEWAY_HEALTH),
    ("/api", API),
)
"""Each table under the prefix that the document and the tests know it by."""

METHOD_NOT_ALLOWED = 405


def create_app(rt: Runtime, api: Sequence[tuple[str, str, http.Endpoint]] = API) -> Starlette:
    """The ASGI application on an open runtime; its lifespan opens and closes the desk."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with open_desk(rt) as desk, app.state.authenticator.last_active.kept():
            app.state.desk = desk
            yield

    measured = Metrics()
    app = Starlette(
        routes=[
            *_routes("", ROOT),
            *_routes("", GATEWAY),
            *_routes(PREFIX, (*GATEWAY_HEALTH, *HEALTH, *GATEWAY)),
            *_routes(PREFIX, [(method, short, to) for method, path, to in GATEWAY if (short := without_v1(path))]),
            *(route for prefix in PREFIXES for route in _routes(prefix, api)),
        ],
        middleware=[
            Middleware(RequestId, logs=rt.settings.request_log, requests=measured.requests),
            Middleware(Dress),
            Middleware(
                Cors,
                allow_origins=rt.settings.cors_origins,
                allow_methods=METHODS,
                allow_headers=REQUEST_HEADERS,
                expose_headers=EXPOSED,
                max_age=600,
            ),
            Middleware(Hosts, allowed=rt.settings.allowed_hosts),
        ],
        lifespan=lifespan,
        exception_handlers={Exception: _on_error, 404: _on_error, 405: _on_error},
    )
    app.router.redirect_slashes = False
    app.state.runtime = rt
    app.state.metrics = measured
    app.state.openapi = partial(published, TABLES)
    app.state.authenticator = Authenticator(rt.settings, rt.db)
    app.state.model_health = ModelHealth(rt)
    return app


def _routes(prefix: str, table: Sequence[tuple[str, str, http.Endpoint]]) -> list[Route]:
    return [_route(method, prefix + path, endpoint) for method, path, endpoint in table]


@cache
def _route(method: str, path: str, endpoint: http.Endpoint) -> Route:
    return Route(path, endpoint, methods=[method])


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == METHOD_NOT_ALLOWED:
        error.headers = {"Allow": ", ".join(sorted(_methods_of(request)))}
    return http.failed(request, error, face_of(request.scope["path"]))


def _methods_of(request: Request) -> set[str]:
    """All that this path takes: each method is a route of its own, and Starlette names those of the first only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {
        method for route in routes if route.path_regex.match(request.scope["path"]) for method in route.methods or ()
    }
