"""Every table of the job path, the database clock, and the guard that final states stay final."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# The clock that decides leases, due times and deadlines. Tests move it: `set app.now = '2026-01-15T12:00:00Z'`.
APP_NOW = """
create function app_now() returns timestamptz language sql stable as
$$ select coalesce(nullif(current_setting('app.now', true), '')::timestamptz, statement_timestamp()) $$
"""

# RFC 9562: 48 bits of milliseconds, version 7, the rest random. For rows that a statement makes from others.
UUID7 = """
create function uuid7() returns uuid language sql volatile as
$$ select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
       placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
       52, 1), 53, 1), 'hex')::uuid $$
"""

FINAL_IS_FINAL = """
create function refuse_leaving_final() returns trigger language plpgsql as
$$ begin raise exception '% % is final', tg_table_name, old.id using errcode = 'integrity_constraint_violation'; end $$
"""

GUARDED = (("jobs", "status"), ("calls", "state"))
GUARD = """
create trigger final_is_final before update of {column} on {table} for each row
when (old.{column} in ('completed', 'failed', 'cancelled') and new.{column} <> old.{column})
execute function refuse_leaving_final()
"""


def upgrade() -> None:
    """Expand only: the code before this revision goes on running on it."""
    op.execute(APP_NOW)
    op.execute(UUID7)
    op.execute(FINAL_IS_FINAL)
    op.create_table(
        "attempts",
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("litellm_model", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), server_default="in_progress", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_chunk_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=True),
        sa.Column("usage_source", sa.Text(), nullable=True),
        sa.Column("maybe_billed", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("input_nanousd_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("output_nanousd_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("cached_input_nanousd_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("price_source", sa.Text(), nullable=True),
        sa.Column("price_version", sa.Text(), nullable=True),
        sa.Column("provider_cost_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("client_cost_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("provider_request_id", sa.Text(), nullable=True),
        sa.CheckConstraint("(outcome = 'in_progress') = (ended_at is null)", name=op.f("ck_attempts_ended")),
        sa.CheckConstraint(
            "outcome in ('in_progress', 'succeeded', 'failed', 'unknown', 'abandoned')",
            name=op.f("ck_attempts_outcome"),
        ),
        sa.PrimaryKeyConstraint("call_id", "number", name=op.f("pk_attempts")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_attempts_in_progress",
        "attempts",
        ["started_at"],
        unique=False,
        postgresql_where=sa.text("outcome = 'in_progress'"),
    )
    op.create_table(
        "call_payloads",
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("request", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("response", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("call_id", name=op.f("pk_call_payloads")),
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("trigger", sa.Text(), server_default="scheduled", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response_head", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_delivery_attempts")),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("subject_id", sa.Uuid(), nullable=True, comment="the call of a call event"),
        sa.Column("sequence", sa.Integer(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False, comment="serialised once; sent unchanged in every try"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_events")),
        sa.UniqueConstraint("id", name=op.f("uq_events_id")),
    )
    op.create_index("ix_events_team_id_seq", "events", ["team_id", "seq"], unique=False)
    op.create_index(
        "uq_events_job_id_sequence",
        "events",
        ["job_id", "sequence"],
        unique=True,
        postgresql_where=sa.text("job_id is not null"),
    )
    op.create_table(
        "model_access_groups",
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint("status in ('active', 'inactive')", name=op.f("ck_model_access_groups_status")),
        sa.PrimaryKeyConstraint("group_name", name=op.f("pk_model_access_groups")),
    )
    op.create_table(
        "model_aliases",
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("litellm_model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("actual_model", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("active", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("fallbacks", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("input_nanousd_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("output_nanousd_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("cached_input_nanousd_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("allow_unpriced", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("on_unknown", sa.Text(), server_default="retry", nullable=False),
        sa.Column("max_output_tokens", sa.Integer(), nullable=True),
        sa.Column("credential_name", sa.Text(), nullable=True),
        sa.Column("api_base", sa.Text(), nullable=True),
        sa.Column("api_key_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint("on_unknown in ('retry', 'fail')", name=op.f("ck_model_aliases_on_unknown")),
        sa.PrimaryKeyConstraint("alias", name=op.f("pk_model_aliases")),
    )
    op.create_table(
        "organizations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint("status in ('active', 'suspended', 'paused')", name=op.f("ck_organizations_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
    )
    op.create_table(
        "model_access_group_members",
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("position", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["alias"], ["model_aliases.alias"], name=op.f("fk_model_access_group_members_alias"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["group_name"],
            ["model_access_groups.group_name"],
            name=op.f("fk_model_access_group_members_group_name"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("group_name", "alias", name=op.f("pk_model_access_group_members")),
    )
    op.create_index(op.f("ix_model_access_group_members_alias"), "model_access_group_members", ["alias"], unique=False)
    op.create_table(
        "teams",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("team_alias", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("default_model", sa.Text(), nullable=True),
        sa.Column("budget_mode", sa.Text(), server_default="job_based", nullable=False),
        sa.Column("alert_at_percentage", postgresql.ARRAY(sa.Numeric()), server_default="{80,90,100}", nullable=False),
        sa.Column("credits_per_dollar", sa.Numeric(), server_default="10", nullable=False),
        sa.Column("tokens_per_credit", sa.BigInteger(), server_default="10000", nullable=False),
        sa.Column("cost_markup_percentage", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("charge_failed_calls", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("rpm_limit", sa.Integer(), nullable=True),
        sa.Column("tpm_limit", sa.Integer(), nullable=True),
        sa.Column("max_parallel_calls", sa.Integer(), nullable=True),
        sa.Column("max_queued_calls", sa.Integer(), nullable=True),
        sa.Column("weight", sa.Integer(), server_default="1", nullable=False),
        sa.Column("store_payloads", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("callback_secret_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint(
            "budget_mode in ('job_based', 'consumption_usd', 'consumption_tokens')", name=op.f("ck_teams_budget_mode")
        ),
        sa.CheckConstraint("status in ('active', 'suspended', 'paused')", name=op.f("ck_teams_status")),
        sa.CheckConstraint("cost_markup_percentage between 0 and 1000", name=op.f("ck_teams_markup")),
        sa.CheckConstraint("weight between 1 and 100", name=op.f("ck_teams_weight")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_teams_organization_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
    )
    op.create_index(op.f("ix_teams_organization_id"), "teams", ["organization_id"], unique=False)
    op.create_table(
        "credit_accounts",
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("allocated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("used", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("limit_mode", sa.Text(), server_default="hard", nullable=False),
        sa.Column("credit_limit", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint(
            "limit_mode <> 'hard' or allocated - used - held >= 0", name=op.f("ck_credit_accounts_never_overspent")
        ),
        sa.CheckConstraint("limit_mode in ('hard', 'soft', 'unlimited')", name=op.f("ck_credit_accounts_limit_mode")),
        sa.CheckConstraint("held >= 0", name=op.f("ck_credit_accounts_held")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_credit_accounts_team_id")),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_credit_accounts")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_table(
        "credit_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "seq",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="the order in which the balance changed",
        ),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False, comment="signed change of credits_remaining"),
        sa.Column("before", sa.BigInteger(), nullable=False),
        sa.Column("after", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint(
            "kind in ('deduction', 'allocation', 'refund', 'adjustment', 'subscription_payment', 'one_time_payment')",
            name=op.f("ck_credit_entries_kind"),
        ),
        sa.CheckConstraint('after = "before" + amount', name=op.f("ck_credit_entries_adds_up")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_credit_entries_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_entries")),
        sa.UniqueConstraint("job_id", "kind", name=op.f("uq_credit_entries_job_id_kind")),
    )
    op.create_index("ix_credit_entries_team_id_seq", "credit_entries", ["team_id", "seq"], unique=False)
    op.create_table(
        "holds",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint("credits > 0", name=op.f("ck_holds_credits")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_holds_team_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_holds")),
    )
    op.create_index(op.f("ix_holds_team_id"), "holds", ["team_id"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column("external_task_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("auto_complete", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("calls_total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("calls_completed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("calls_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("calls_cancelled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("total_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("client_cost_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("provider_cost_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("latency_sum_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("budget_mode", sa.Text(), nullable=True, comment="the team's when the first call was accepted"),
        sa.Column("charge_failed_calls", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("credits_held", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("credits_charged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "credits_remaining",
            sa.BigInteger(),
            nullable=True,
            comment="the team's, as answered when the job became final",
        ),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("callback_events", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("callback_secret_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("event_sequence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint(
            "(status in ('completed', 'failed', 'cancelled')) = (completed_at is not null)", name=op.f("ck_jobs_final")
        ),
        sa.CheckConstraint(
            "status in ('pending', 'in_progress', 'completed', 'failed', 'cancelled')", name=op.f("ck_jobs_status")
        ),
        sa.CheckConstraint(
            "status not in ('completed', 'failed', 'cancelled') or (calls_completed + calls_failed + calls_cancelled = calls_total and credits_held = 0)",
            name=op.f("ck_jobs_final_is_settled"),
        ),
        sa.CheckConstraint(
            "calls_completed + calls_failed + calls_cancelled <= calls_total", name=op.f("ck_jobs_counts")
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_jobs_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_jobs_deadline_at",
        "jobs",
        ["deadline_at"],
        unique=False,
        postgresql_where=sa.text("status in ('pending', 'in_progress') and deadline_at is not null"),
    )
    op.create_index("ix_jobs_team_id_created_at", "jobs", ["team_id", "created_at"], unique=False)
    op.create_index(
        "ix_jobs_updated_at",
        "jobs",
        ["updated_at"],
        unique=False,
        postgresql_where=sa.text("status in ('pending', 'in_progress')"),
    )
    op.create_table(
        "team_access_groups",
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["group_name"], ["model_access_groups.group_name"], name=op.f("fk_team_access_groups_group_name")
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_team_access_groups_team_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "group_name", name=op.f("pk_team_access_groups")),
    )
    op.create_index(op.f("ix_team_access_groups_group_name"), "team_access_groups", ["group_name"], unique=False)
    op.create_table(
        "virtual_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the key; the key itself is never stored"
        ),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("blocked", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_virtual_keys_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_virtual_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_virtual_keys_hash")),
    )
    op.create_index(op.f("ix_virtual_keys_team_id"), "virtual_keys", ["team_id"], unique=False)
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("signing", sa.Text(), server_default="v1", nullable=False),
        sa.Column("secret_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("auth_header_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("headers_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_triggered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_in_a_row", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint(
            "status in ('active', 'pending_verification', 'disabled')", name=op.f("ck_webhook_endpoints_status")
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_webhook_endpoints_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_index(op.f("ix_webhook_endpoints_team_id"), "webhook_endpoints", ["team_id"], unique=False)
    op.create_table(
        "calls",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column(
            "position",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="index inside the request that brought it",
        ),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("model", sa.Text(), nullable=False, comment="the name the client asked for"),
        sa.Column("candidates", postgresql.ARRAY(sa.Text()), nullable=False, comment="aliases to try, in order"),
        sa.Column("candidate", sa.Integer(), server_default="0", nullable=False),
        sa.Column("candidate_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("call_metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("estimated_prompt_tokens", sa.Integer(), server_default="0", nullable=False),
        sa.Column("estimated_output_tokens", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deaths", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("total_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=True),
        sa.Column("usage_source", sa.Text(), nullable=True),
        sa.Column("client_cost_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("provider_cost_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("retry_after_s", sa.Integer(), nullable=True),
        sa.Column("maybe_billed", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("callback_events", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("callback_secret_sealed", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "(state in ('completed', 'failed', 'cancelled')) = (completed_at is not null)", name=op.f("ck_calls_final")
        ),
        sa.CheckConstraint("state <> 'in_progress' or lease_expires_at is not null", name=op.f("ck_calls_leased")),
        sa.CheckConstraint(
            "state in ('pending', 'in_progress', 'completed', 'failed', 'cancelled')", name=op.f("ck_calls_state")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_calls_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_calls_deadline",
        "calls",
        ["deadline_at"],
        unique=False,
        postgresql_where=sa.text("state in ('pending', 'in_progress')"),
    )
    op.create_index("ix_calls_job_id_id", "calls", ["job_id", "id"], unique=False)
    op.create_index(
        "ix_calls_job_unfinished",
        "calls",
        ["job_id"],
        unique=False,
        postgresql_where=sa.text("state in ('pending', 'in_progress')"),
    )
    op.create_index(
        "ix_calls_lease", "calls", ["lease_expires_at"], unique=False, postgresql_where=sa.text("state = 'in_progress'")
    )
    op.create_index(
        "ix_calls_rung",
        "calls",
        ["rung_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending' and rung_at is not null"),
    )
    op.create_index(
        "ix_calls_team_unfinished",
        "calls",
        ["team_id"],
        unique=False,
        postgresql_where=sa.text("state in ('pending', 'in_progress')"),
    )
    op.create_index(
        "ix_calls_waiting",
        "calls",
        ["team_id", sa.literal_column("priority desc"), "id"],
        unique=False,
        postgresql_where=sa.text("state = 'pending' and rung_at is null"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("endpoint_id", sa.Uuid(), nullable=True),
        sa.Column("callback", sa.Text(), nullable=True, comment="whose callback: job or call; null for an endpoint"),
        sa.Column("replay_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state in ('pending', 'delivered', 'failing', 'exhausted', 'aborted', 'discarded')",
            name=op.f("ck_deliveries_state"),
        ),
        sa.CheckConstraint("(endpoint_id is null) <> (callback is null)", name=op.f("ck_deliveries_target")),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], name=op.f("fk_deliveries_endpoint_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "event_id",
            "endpoint_id",
            "callback",
            "replay_id",
            name="uq_deliveries_target",
            postgresql_nulls_not_distinct=True,
        ),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("state in ('pending', 'failing')"),
    )
    op.create_index("ix_deliveries_job_id", "deliveries", ["job_id"], unique=False)
    for table, column in GUARDED:
        op.execute(GUARD.format(table=table, column=column))


def downgrade() -> None:
    """Back to the revision before."""
    op.drop_index("ix_deliveries_job_id", table_name="deliveries")
    op.drop_index(
        "ix_deliveries_due", table_name="deliveries", postgresql_where=sa.text("state in ('pending', 'failing')")
    )
    op.drop_table("deliveries")
    op.drop_index(
        "ix_calls_waiting", table_name="calls", postgresql_where=sa.text("state = 'pending' and rung_at is null")
    )
    op.drop_index(
        "ix_calls_team_unfinished", table_name="calls", postgresql_where=sa.text("state in ('pending', 'in_progress')")
    )
    op.drop_index(
        "ix_calls_rung", table_name="calls", postgresql_where=sa.text("state = 'pending' and rung_at is not null")
    )
    op.drop_index("ix_calls_lease", table_name="calls", postgresql_where=sa.text("state = 'in_progress'"))
    op.drop_index(
        "ix_calls_job_unfinished", table_name="calls", postgresql_where=sa.text("state in ('pending', 'in_progress')")
    )
    op.drop_index("ix_calls_job_id_id", table_name="calls")
    op.drop_index(
        "ix_calls_deadline", table_name="calls", postgresql_where=sa.text("state in ('pending', 'in_progress')")
    )
    op.drop_table("calls")
    op.drop_index(op.f("ix_webhook_endpoints_team_id"), table_name="webhook_endpoints")
    op.drop_table("webhook_endpoints")
    op.drop_index(op.f("ix_virtual_keys_team_id"), table_name="virtual_keys")
    op.drop_table("virtual_keys")
    op.drop_index(op.f("ix_team_access_groups_group_name"), table_name="team_access_groups")
    op.drop_table("team_access_groups")
    op.drop_index(
        "ix_jobs_updated_at", table_name="jobs", postgresql_where=sa.text("status in ('pending', 'in_progress')")
    )
    op.drop_index("ix_jobs_team_id_created_at", table_name="jobs")
    op.drop_index(
        "ix_jobs_deadline_at",
        table_name="jobs",
        postgresql_where=sa.text("status in ('pending', 'in_progress') and deadline_at is not null"),
    )
    op.drop_table("jobs")
    op.drop_index(op.f("ix_holds_team_id"), table_name="holds")
    op.drop_table("holds")
    op.drop_index("ix_credit_entries_team_id_seq", table_name="credit_entries")
    op.drop_table("credit_entries")
    op.drop_table("credit_accounts")
    op.drop_index(op.f("ix_teams_organization_id"), table_name="teams")
    op.drop_table("teams")
    op.drop_index(op.f("ix_model_access_group_members_alias"), table_name="model_access_group_members")
    op.drop_table("model_access_group_members")
    op.drop_table("organizations")
    op.drop_table("model_aliases")
    op.drop_table("model_access_groups")
    op.drop_index("uq_events_job_id_sequence", table_name="events", postgresql_where=sa.text("job_id is not null"))
    op.drop_index("ix_events_team_id_seq", table_name="events")
    op.drop_table("events")
    op.drop_table("delivery_attempts")
    op.drop_table("call_payloads")
    op.drop_index("ix_attempts_in_progress", table_name="attempts", postgresql_where=sa.text("outcome = 'in_progress'"))
    op.drop_table("attempts")
    op.execute("drop function refuse_leaving_final")
    op.execute("drop function uuid7")
    op.execute("drop function app_now")
