"""The tables: narrow, payloads apart, money append-only; the nouns own the statements."""

from shared.tables.columns import metadata
from shared.tables.delivery import deliveries, delivery_attempts, events, webhook_endpoints
from shared.tables.models import model_access_group_members, model_access_groups, model_aliases, team_access_groups
from shared.tables.money import credit_accounts, credit_entries, holds
from shared.tables.tenants import organizations, teams, virtual_keys
from shared.tables.work import attempts, call_payloads, calls, jobs

__all__ = [
    "attempts",
    "call_payloads",
    "calls",
    "credit_accounts",
    "credit_entries",
    "deliveries",
    "delivery_attempts",
    "events",
    "holds",
    "jobs",
    "metadata",
    "model_access_group_members",
    "model_access_groups",
    "model_aliases",
    "organizations",
    "team_access_groups",
    "teams",
    "virtual_keys",
    "webhook_endpoints",
]
