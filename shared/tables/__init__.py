"""The tables: narrow, payloads apart, money append-only; the nouns own the statements."""

from shared.tables.access import admin_sessions, admin_users, audit_log, idempotency_keys, login_failures
from shared.tables.batches import batches, file_chunks, files, provider_slowdowns
from shared.tables.columns import metadata
from shared.tables.delivery import (
    deliveries,
    delivery_attempts,
    delivery_queues,
    events,
    replays,
    webhook_endpoints,
    webhook_keys,
)
from shared.tables.models import (
    model_access_group_members,
    model_access_groups,
    model_aliases,
    provider_circuits,
    provider_credentials,
    team_access_groups,
)
from shared.tables.money import budgets, credit_accounts, credit_entries, holds
from shared.tables.tenants import organizations, teams, virtual_keys
from shared.tables.usage import usage_daily
from shared.tables.work import attempts, call_payloads, calls, jobs

__all__ = [
    "admin_sessions",
    "admin_users",
    "attempts",
    "audit_log",
    "batches",
    "budgets",
    "call_payloads",
    "calls",
    "credit_accounts",
    "credit_entries",
    "deliveries",
    "delivery_attempts",
    "delivery_queues",
    "events",
    "file_chunks",
    "files",
    "holds",
    "idempotency_keys",
    "jobs",
    "login_failures",
    "metadata",
    "model_access_group_members",
    "model_access_groups",
    "model_aliases",
    "organizations",
    "provider_circuits",
    "provider_credentials",
    "provider_slowdowns",
    "replays",
    "team_access_groups",
    "teams",
    "usage_daily",
    "virtual_keys",
    "webhook_endpoints",
    "webhook_keys",
]
