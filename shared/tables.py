"""The tables: narrow, payloads apart, partial indexes per live state, money append-only; the nouns own the statements.

No foreign key leads to calls, attempts, events or deliveries: those are to be partitioned by month.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from shared.states import CallState, DeliveryState, JobStatus, Outcome

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

QUEUE_STORAGE: dict[str, Any] = {"postgresql_with": {"fillfactor": "70"}}
"""Rows that change state in place: room for HOT updates."""


def _time(name: str, *, required: bool = False, default: bool = False) -> Column[Any]:
    return Column(
        name,
        DateTime(timezone=True),
        nullable=not (required or default),
        server_default=text("app_now()") if default else None,
    )


def _count(name: str, type_: type[Integer | BigInteger] = Integer) -> Column[Any]:
    return Column(name, type_, nullable=False, server_default="0")


def _flag(name: str, *, default: bool = False) -> Column[Any]:
    return Column(name, Boolean, nullable=False, server_default="true" if default else "false")


def _words(name: str, *, required: bool = True) -> Column[Any]:
    return Column(name, ARRAY(Text), nullable=not required, server_default="{}" if required else None)


def _one_of(column: str, words: Iterable[str], name: str) -> CheckConstraint:
    return CheckConstraint(f"{column} in ({', '.join(repr(str(word)) for word in words)})", name=name)


def _state(column: str, enum: type[StrEnum]) -> CheckConstraint:
    return _one_of(column, enum, column)


def _metadata() -> Column[Any]:
    return Column("metadata", JSONB, nullable=False, server_default="{}")


organizations = Table(
    "organizations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="active"),
    _time("paused_until"),
    _metadata(),
    _time("created_at", default=True),
    _time("updated_at", default=True),
    _one_of("status", ("active", "suspended", "paused"), "status"),
)

teams = Table(
    "teams",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False, index=True),
    Column("team_alias", Text),
    Column("status", Text, nullable=False, server_default="active"),
    _time("paused_until"),
    Column("default_model", Text),
    Column("budget_mode", Text, nullable=False, server_default="job_based"),
    Column("alert_at_percentage", ARRAY(Numeric), nullable=False, server_default="{80,90,100}"),
    Column("credits_per_dollar", Numeric, nullable=False, server_default="10"),
    Column("tokens_per_credit", BigInteger, nullable=False, server_default="10000"),
    Column("cost_markup_percentage", Numeric, nullable=False, server_default="0"),
    _flag("charge_failed_calls"),
    Column("rpm_limit", Integer),
    Column("tpm_limit", Integer),
    Column("max_parallel_calls", Integer),
    Column("max_queued_calls", Integer),
    Column("weight", Integer, nullable=False, server_default="1"),
    _flag("store_payloads", default=True),
    Column("callback_secret_sealed", LargeBinary, nullable=False),
    _metadata(),
    _time("created_at", default=True),
    _time("updated_at", default=True),
    _one_of("status", ("active", "suspended", "paused"), "status"),
    _one_of("budget_mode", ("job_based", "consumption_usd", "consumption_tokens"), "budget_mode"),
    CheckConstraint("weight between 1 and 100", name="weight"),
    CheckConstraint("cost_markup_percentage between 0 and 1000", name="markup"),
)

virtual_keys = Table(
    "virtual_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column(
        "hash", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the key; the key itself is never stored"
    ),
    Column("hint", Text, nullable=False),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False, index=True),
    _flag("blocked"),
    _time("expires_at"),
    _time("created_at", default=True),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("alias", Text, primary_key=True),
    Column("litellm_model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("actual_model", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text),
    _flag("active", default=True),
    _words("fallbacks"),
    Column("input_nanousd_per_mtok", BigInteger),
    Column("output_nanousd_per_mtok", BigInteger),
    Column("cached_input_nanousd_per_mtok", BigInteger),
    _flag("allow_unpriced"),
    Column("on_unknown", Text, nullable=False, server_default="retry"),
    Column("max_output_tokens", Integer),
    Column("credential_name", Text),
    Column("api_base", Text),
    Column("api_key_sealed", LargeBinary),
    _time("created_at", default=True),
    _time("updated_at", default=True),
    _one_of("on_unknown", ("retry", "fail"), "on_unknown"),
)

model_access_groups = Table(
    "model_access_groups",
    metadata,
    Column("group_name", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("description", Text),
    Column("status", Text, nullable=False, server_default="active"),
    _time("created_at", default=True),
    _time("updated_at", default=True),
    _one_of("status", ("active", "inactive"), "status"),
)

model_access_group_members = Table(
    "model_access_group_members",
    metadata,
    Column("group_name", Text, ForeignKey("model_access_groups.group_name", ondelete="CASCADE"), primary_key=True),
    Column("alias", Text, ForeignKey("model_aliases.alias", ondelete="CASCADE"), primary_key=True, index=True),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("position", Integer, nullable=False, server_default="0"),
)

team_access_groups = Table(
    "team_access_groups",
    metadata,
    Column("team_id", Text, ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True),
    Column("group_name", Text, ForeignKey("model_access_groups.group_name"), primary_key=True, index=True),
    Column("position", Integer, nullable=False, server_default="0"),
)

credit_accounts = Table(
    "credit_accounts",
    metadata,
    Column("team_id", Text, ForeignKey("teams.id"), primary_key=True),
    _count("allocated", BigInteger),
    _count("used", BigInteger),
    _count("held", BigInteger),
    Column("limit_mode", Text, nullable=False, server_default="hard"),
    Column("credit_limit", BigInteger),
    _time("created_at", default=True),
    _time("updated_at", default=True),
    _one_of("limit_mode", ("hard", "soft", "unlimited"), "limit_mode"),
    CheckConstraint("held >= 0", name="held"),
    CheckConstraint("limit_mode <> 'hard' or allocated - used - held >= 0", name="never_overspent"),
    **QUEUE_STORAGE,
)

credit_entries = Table(
    "credit_entries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("job_id", Uuid),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False, comment="signed change of credits_remaining"),
    Column("before", BigInteger, nullable=False),
    Column("after", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    _time("created_at", default=True),
    CheckConstraint('after = "before" + amount', name="adds_up"),
    _one_of(
        "kind",
        ("deduction", "allocation", "refund", "adjustment", "subscription_payment", "one_time_payment"),
        "kind",
    ),
    UniqueConstraint("job_id", "kind"),
    Index("ix_credit_entries_team_id_created_at", "team_id", "created_at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("organization_id", Text, nullable=False),
    Column("user_id", Text),
    Column("job_type", Text, nullable=False),
    Column("external_task_id", Text),
    Column("status", Text, nullable=False, server_default="pending"),
    _metadata(),
    _flag("auto_complete"),
    _count("priority"),
    _count("calls_total"),
    _count("calls_completed"),
    _count("calls_failed"),
    _count("calls_cancelled"),
    _count("total_tokens", BigInteger),
    _count("client_cost_nanousd", BigInteger),
    _count("provider_cost_nanousd", BigInteger),
    _count("latency_sum_ms", BigInteger),
    Column("budget_mode", Text, comment="the team's when the first call was accepted"),
    _flag("charge_failed_calls"),
    _count("credits_held", BigInteger),
    _count("credits_charged", BigInteger),
    Column("credits_remaining", BigInteger, comment="the team's, as answered when the job became final"),
    Column("failure_reason", Text),
    Column("error_message", Text),
    Column("callback_url", Text),
    _words("callback_events"),
    Column("callback_secret_sealed", LargeBinary),
    _count("event_sequence"),
    _time("deadline_at"),
    _time("created_at", default=True),
    _time("started_at"),
    _time("completed_at"),
    _time("updated_at", default=True),
    _state("status", JobStatus),
    CheckConstraint("(status in ('completed', 'failed', 'cancelled')) = (completed_at is not null)", name="final"),
    CheckConstraint("calls_completed + calls_failed + calls_cancelled <= calls_total", name="counts"),
    CheckConstraint(
        "status not in ('completed', 'failed', 'cancelled') or "
        "(calls_completed + calls_failed + calls_cancelled = calls_total and credits_held = 0)",
        name="final_is_settled",
    ),
    Index("ix_jobs_team_id_created_at", "team_id", "created_at"),
    Index(
        "ix_jobs_deadline_at",
        "deadline_at",
        postgresql_where=text("status in ('pending', 'in_progress') and deadline_at is not null"),
    ),
    Index("ix_jobs_updated_at", "updated_at", postgresql_where=text("status in ('pending', 'in_progress')")),
    **QUEUE_STORAGE,
)

calls = Table(
    "calls",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("team_id", Text, nullable=False),
    Column("position", Integer, nullable=False, server_default="0", comment="index inside the request that brought it"),
    Column("state", Text, nullable=False, server_default="pending"),
    _count("priority"),
    Column("model", Text, nullable=False, comment="the name the client asked for"),
    Column("candidates", ARRAY(Text), nullable=False, comment="aliases to try, in order"),
    _count("candidate"),
    _count("candidate_attempts"),
    Column("purpose", Text),
    Column("metadata", JSONB),
    Column("call_metadata", JSONB),
    Column("estimated_prompt_tokens", Integer, nullable=False, server_default="0"),
    Column("estimated_output_tokens", Integer, nullable=False, server_default="0"),
    _count("attempt"),
    _count("failures"),
    _count("deaths"),
    Column("worker", Text),
    _time("lease_expires_at"),
    _time("run_at", default=True),
    _time("rung_at"),
    _time("deadline_at", required=True),
    _time("created_at", default=True),
    _time("started_at"),
    _time("completed_at"),
    Column("finish_reason", Text),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("total_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("usage_source", Text),
    _count("client_cost_nanousd", BigInteger),
    _count("provider_cost_nanousd", BigInteger),
    Column("latency_ms", Integer),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("retry_after_s", Integer),
    _flag("maybe_billed"),
    Column("callback_url", Text),
    _words("callback_events"),
    Column("callback_secret_sealed", LargeBinary),
    _state("state", CallState),
    CheckConstraint("(state in ('completed', 'failed', 'cancelled')) = (completed_at is not null)", name="final"),
    CheckConstraint("state <> 'in_progress' or lease_expires_at is not null", name="leased"),
    Index("ix_calls_job_id_id", "job_id", "id"),
    Index("ix_calls_team_unfinished", "team_id", postgresql_where=text("state in ('pending', 'in_progress')")),
    Index("ix_calls_job_unfinished", "job_id", postgresql_where=text("state in ('pending', 'in_progress')")),
    Index("ix_calls_rung", "rung_at", postgresql_where=text("state = 'pending' and rung_at is not null")),
    Index(
        "ix_calls_waiting",
        "team_id",
        text("priority desc"),
        "id",
        postgresql_where=text("state = 'pending' and rung_at is null"),
    ),
    Index("ix_calls_lease", "lease_expires_at", postgresql_where=text("state = 'in_progress'")),
    Index("ix_calls_deadline", "deadline_at", postgresql_where=text("state in ('pending', 'in_progress')")),
    **QUEUE_STORAGE,
)

call_payloads = Table(
    "call_payloads",
    metadata,
    Column("call_id", Uuid, primary_key=True),
    Column("request", JSON, nullable=False),
    Column("response", JSON),
)

attempts = Table(
    "attempts",
    metadata,
    Column("call_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("alias", Text, nullable=False),
    Column("provider", Text),
    Column("litellm_model", Text),
    Column("worker", Text, nullable=False),
    Column("outcome", Text, nullable=False, server_default="in_progress"),
    _time("started_at", default=True),
    _time("ended_at"),
    _time("first_chunk_at"),
    Column("http_status", Integer),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("usage_source", Text),
    _flag("maybe_billed"),
    Column("input_nanousd_per_mtok", BigInteger),
    Column("output_nanousd_per_mtok", BigInteger),
    Column("cached_input_nanousd_per_mtok", BigInteger),
    Column("price_source", Text),
    Column("price_version", Text),
    _count("provider_cost_nanousd", BigInteger),
    _count("client_cost_nanousd", BigInteger),
    Column("provider_request_id", Text),
    _state("outcome", Outcome),
    CheckConstraint("(outcome = 'in_progress') = (ended_at is null)", name="ended"),
    Index("ix_attempts_in_progress", "started_at", postgresql_where=text("outcome = 'in_progress'")),
    **QUEUE_STORAGE,
)

holds = Table(
    "holds",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False, index=True),
    Column("credits", BigInteger, nullable=False),
    _time("created_at", default=True),
    CheckConstraint("credits > 0", name="credits"),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Uuid, nullable=False, unique=True),
    Column("type", Text, nullable=False),
    Column("team_id", Text, nullable=False),
    Column("job_id", Uuid),
    Column("subject_id", Uuid, comment="the call of a call event"),
    Column("sequence", Integer),
    Column("body", Text, nullable=False, comment="serialised once; sent unchanged in every try"),
    _time("created_at", default=True),
    Index("ix_events_team_id_seq", "team_id", "seq"),
    Index("uq_events_job_id_sequence", "job_id", "sequence", unique=True, postgresql_where=text("job_id is not null")),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    _words("events"),
    Column("status", Text, nullable=False, server_default="active"),
    Column("disabled_reason", Text),
    Column("description", Text),
    Column("signing", Text, nullable=False, server_default="v1"),
    Column("secret_sealed", LargeBinary, nullable=False),
    Column("auth_header_sealed", LargeBinary),
    Column("headers_sealed", LargeBinary),
    Column("last_status", Integer),
    _time("last_triggered_at"),
    _time("failing_since"),
    _count("refused_in_a_row"),
    _time("created_at", default=True),
    _time("updated_at", default=True),
    _one_of("status", ("active", "pending_verification", "disabled"), "status"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("team_id", Text, nullable=False),
    Column("job_id", Uuid),
    Column("endpoint_id", Uuid, ForeignKey("webhook_endpoints.id")),
    Column("callback", Text, comment="whose callback: job or call; null for an endpoint"),
    Column("replay_id", Uuid),
    Column("state", Text, nullable=False, server_default="pending"),
    _count("attempt"),
    _count("attempt_count"),
    Column("worker", Text),
    _time("next_attempt_at", default=True),
    _time("lease_expires_at"),
    _time("rung_at"),
    Column("last_status", Integer),
    Column("last_error", Text),
    _time("created_at", default=True),
    _time("delivered_at"),
    _state("state", DeliveryState),
    CheckConstraint("(endpoint_id is null) <> (callback is null)", name="target"),
    UniqueConstraint(
        "event_id",
        "endpoint_id",
        "callback",
        "replay_id",
        name="uq_deliveries_target",
        postgresql_nulls_not_distinct=True,
    ),
    Index("ix_deliveries_due", "next_attempt_at", postgresql_where=text("state in ('pending', 'failing')")),
    Index("ix_deliveries_job_id", "job_id"),
    **QUEUE_STORAGE,
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("delivery_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("trigger", Text, nullable=False, server_default="scheduled"),
    _time("started_at", default=True),
    Column("duration_ms", Integer),
    Column("status_code", Integer),
    Column("error_class", Text),
    Column("error", Text),
    Column("response_head", Text),
)
