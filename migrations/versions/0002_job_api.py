"""The job API complete: budgets, refills, keys with limits of their own, credentials, admins, idempotency, usage."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

STATUS = "status in ('active', 'suspended', 'paused')"
STATUS_WITH_DELETED = "status in ('active', 'suspended', 'paused', 'deleted')"

# What ended before has its usage as well, and open jobs the estimates of their open calls.
USAGE_SO_FAR = """
insert into usage_daily (team_id, day, job_type, model, provider, key_id, jobs_completed, jobs_failed, jobs_cancelled,
       credits_charged, calls_completed, calls_failed, calls_cancelled, prompt_tokens, completion_tokens,
       client_cost_nanousd, provider_cost_nanousd, latency_sum_ms)
select team_id, day, job_type, model, provider, key_id, sum(jc), sum(jf), sum(jx), sum(cr), sum(cc), sum(cf), sum(cx),
       sum(pt), sum(ct), sum(cost), sum(pcost), sum(lat)
  from (
    select team_id, (created_at at time zone 'UTC')::date as day, job_type, '' as model, '' as provider,
           '00000000-0000-0000-0000-000000000000'::uuid as key_id, (status = 'completed')::int as jc,
           (status = 'failed')::int as jf, (status = 'cancelled')::int as jx, credits_charged as cr, 0 as cc, 0 as cf,
           0 as cx, 0 as pt, 0 as ct, 0::bigint as cost, 0::bigint as pcost, 0 as lat
      from jobs where status in ('completed', 'failed', 'cancelled')
    union all
    select j.team_id, (j.created_at at time zone 'UTC')::date, j.job_type, c.model, coalesce(a.provider, ''),
           coalesce(c.key_id, '00000000-0000-0000-0000-000000000000'), 0, 0, 0, 0, (c.state = 'completed')::int,
           (c.state = 'failed')::int, (c.state = 'cancelled')::int, coalesce(c.prompt_tokens, 0),
           coalesce(c.completion_tokens, 0), c.client_cost_nanousd, 0, coalesce(c.latency_ms, 0)
      from calls c join jobs j on j.id = c.job_id
      left join attempts a on a.call_id = c.id and a.number = c.attempt
     where c.state in ('completed', 'failed', 'cancelled')
    union all
    select j.team_id, (j.created_at at time zone 'UTC')::date, j.job_type, c.model, coalesce(a.provider, ''),
           coalesce(c.key_id, '00000000-0000-0000-0000-000000000000'), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
           a.provider_cost_nanousd, 0
      from attempts a join calls c on c.id = a.call_id join jobs j on j.id = c.job_id
     where a.provider_cost_nanousd <> 0
  ) lines group by 1, 2, 3, 4, 5, 6
"""

OPEN_ESTIMATES = """
update jobs j set estimate_tokens = c.tokens
  from (select job_id, sum(estimated_prompt_tokens::bigint + estimated_output_tokens) as tokens from calls
         where state in ('pending', 'in_progress') group by job_id) c where c.job_id = j.id
"""


def upgrade() -> None:
    """Expand only: the code before this revision goes on running on it."""
    for table in ("organizations", "teams"):
        op.drop_constraint(op.f(f"ck_{table}_status"), table)
        op.create_check_constraint(op.f(f"ck_{table}_status"), table, STATUS_WITH_DELETED)
    op.create_table(
        "admin_users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False, comment="lower case"),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False, comment="argon2id"),
        sa.Column("is_active", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.CheckConstraint("role in ('owner', 'admin', 'user')", name=op.f("ck_admin_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_users")),
        sa.UniqueConstraint("email", name=op.f("uq_admin_users_email")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False, comment="an admin user's id, or admin_key"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource_type", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("ip_address", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_created_at", "audit_log", ["created_at", "id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.LargeBinary(), nullable=False, comment="SHA-256 of caller, method, path and key"),
        sa.Column("request", sa.LargeBinary(), nullable=False, comment="SHA-256 of query and body"),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("call_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column(
            "answer_sealed",
            sa.LargeBinary(),
            nullable=True,
            comment="headers and body; null: rebuilt from the call or job",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"], unique=False)
    op.create_table(
        "login_failures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("ip_address", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_failures")),
    )
    op.create_index("ix_login_failures_email", "login_failures", ["email", "created_at"], unique=False)
    op.create_index("ix_login_failures_ip_address", "login_failures", ["ip_address", "created_at"], unique=False)
    op.create_table(
        "usage_daily",
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="UTC day on which the job was created"),
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column(
            "model", sa.Text(), server_default="", nullable=False, comment="the asked name; empty on the line of jobs"
        ),
        sa.Column(
            "provider", sa.Text(), server_default="", nullable=False, comment="empty on the line of jobs, or never sent"
        ),
        sa.Column(
            "key_id",
            sa.Uuid(),
            server_default=sa.text("'00000000-0000-0000-0000-000000000000'"),
            nullable=False,
            comment="zeros on the line of jobs",
        ),
        sa.Column("jobs_completed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("jobs_failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("jobs_cancelled", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("credits_charged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("calls_completed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("calls_failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("calls_cancelled", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("client_cost_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("provider_cost_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("latency_sum_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint(
            "team_id", "day", "job_type", "model", "provider", "key_id", name=op.f("pk_usage_daily")
        ),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_usage_daily_model", "usage_daily", ["model"], unique=False, postgresql_where=sa.text("model <> ''")
    )
    op.create_table(
        "admin_sessions",
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the token"),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("ip_address", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["admin_users.id"], name=op.f("fk_admin_sessions_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_admin_sessions")),
    )
    op.create_index("ix_admin_sessions_expires_at", "admin_sessions", ["expires_at"], unique=False)
    op.create_index(op.f("ix_admin_sessions_user_id"), "admin_sessions", ["user_id"], unique=False)
    op.create_table(
        "provider_credentials",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("credential_name", sa.Text(), nullable=False),
        sa.Column("api_base", sa.Text(), nullable=True),
        sa.Column("api_key_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_hint", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("updated_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_provider_credentials_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_credentials")),
        sa.UniqueConstraint(
            "organization_id", "credential_name", name=op.f("uq_provider_credentials_organization_id_credential_name")
        ),
    )
    op.create_index(
        "uq_provider_credentials_active",
        "provider_credentials",
        ["organization_id", "provider"],
        unique=True,
        postgresql_where=sa.text("is_active"),
    )
    op.create_table(
        "budgets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("team_id", sa.Text(), nullable=True),
        sa.Column("max_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("soft_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("spent_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("duration", sa.Text(), nullable=True, comment="30s, 5m, 2h, 30d, 1mo; null: the budget never resets"),
        sa.Column("window_started_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("resets_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(key_id is null) <> (team_id is null)", name=op.f("ck_budgets_owner")),
        sa.CheckConstraint(
            "max_nanousd >= 0 and spent_nanousd >= 0 and held_nanousd >= 0", name=op.f("ck_budgets_positive")
        ),
        sa.ForeignKeyConstraint(["key_id"], ["virtual_keys.id"], name=op.f("fk_budgets_key_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_budgets_team_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        sa.UniqueConstraint("key_id", name=op.f("uq_budgets_key_id")),
        sa.UniqueConstraint("team_id", name=op.f("uq_budgets_team_id")),
        postgresql_with={"fillfactor": "70"},
    )
    op.add_column("attempts", sa.Column("credential_id", sa.Uuid(), nullable=True))
    op.add_column("call_payloads", sa.Column("erase_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_call_payloads_erase_at",
        "call_payloads",
        ["erase_at"],
        unique=False,
        postgresql_where=sa.text("erase_at is not null"),
    )
    op.add_column(
        "calls",
        sa.Column(
            "estimate_nanousd", sa.BigInteger(), server_default="0", nullable=False, comment="client cost, at most"
        ),
    )
    op.add_column("calls", sa.Column("key_id", sa.Uuid(), nullable=True, comment="the virtual key that brought it"))
    op.add_column(
        "calls",
        sa.Column(
            "budget_ids",
            postgresql.ARRAY(sa.Uuid()),
            nullable=True,
            comment="budgets that hold estimate_nanousd for it",
        ),
    )
    op.drop_index(
        op.f("ix_calls_team_unfinished"),
        table_name="calls",
        postgresql_where="(state = ANY (ARRAY['pending'::text, 'in_progress'::text]))",
    )
    op.create_index(
        "ix_calls_team_unfinished",
        "calls",
        ["team_id", "state", "rung_at"],
        unique=False,
        postgresql_where=sa.text("state in ('pending', 'in_progress')"),
    )
    op.create_index(
        "ix_calls_key_unfinished",
        "calls",
        ["key_id"],
        unique=False,
        postgresql_where=sa.text("state in ('pending', 'in_progress')"),
    )
    op.add_column(
        "credit_accounts",
        sa.Column(
            "alerted_percentage", sa.Numeric(), server_default="0", nullable=False, comment="highest threshold told of"
        ),
    )
    op.add_column("credit_accounts", sa.Column("auto_refill", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("credit_accounts", sa.Column("refill_amount", sa.BigInteger(), nullable=True))
    op.add_column("credit_accounts", sa.Column("refill_period", sa.Text(), nullable=True))
    op.add_column(
        "credit_accounts",
        sa.Column(
            "refill_day", sa.Integer(), nullable=True, comment="day of month of a monthly refill, before it is clamped"
        ),
    )
    op.add_column("credit_accounts", sa.Column("last_refill_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("credit_accounts", sa.Column("next_refill_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column(
        "credit_accounts",
        "credit_limit",
        existing_type=sa.BIGINT(),
        comment="ceiling of used + held",
        existing_nullable=True,
    )
    op.create_index(
        "ix_credit_accounts_next_refill_at",
        "credit_accounts",
        ["next_refill_at"],
        unique=False,
        postgresql_where=sa.text("auto_refill"),
    )
    op.add_column(
        "credit_entries",
        sa.Column(
            "payment_nanousd",
            sa.BigInteger(),
            nullable=True,
            comment="what was paid for the credits, where somebody said it",
        ),
    )
    op.add_column("credit_entries", sa.Column("refill_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "uq_credit_entries_team_id_refill_at",
        "credit_entries",
        ["team_id", "refill_at"],
        unique=True,
        postgresql_where=sa.text("refill_at is not null"),
    )
    op.add_column("jobs", sa.Column("credits_per_dollar", sa.Numeric(), nullable=True))
    op.add_column("jobs", sa.Column("tokens_per_credit", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("estimate_nanousd", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("estimate_tokens", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("credits_lost", sa.BigInteger(), server_default="0", nullable=False))
    op.alter_column(
        "jobs",
        "budget_mode",
        existing_type=sa.TEXT(),
        comment="the team's when the first call was accepted, like the three below",
        existing_comment="the team's when the first call was accepted",
        existing_nullable=True,
    )
    op.drop_index(op.f("ix_jobs_team_id_created_at"), table_name="jobs")
    op.create_index(
        "ix_jobs_created_at_id", "jobs", ["created_at", "id"], unique=False, postgresql_include=["status", "job_type"]
    )
    op.create_index(
        "ix_jobs_external_task_id",
        "jobs",
        ["external_task_id"],
        unique=False,
        postgresql_where=sa.text("external_task_id is not null"),
    )
    op.create_index(
        "ix_jobs_team_id_created_at_id",
        "jobs",
        ["team_id", "created_at", "id"],
        unique=False,
        postgresql_include=["status", "job_type", "user_id", "started_at", "completed_at", "client_cost_nanousd"],
    )
    op.add_column(
        "model_access_group_members", sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False)
    )
    op.add_column(
        "model_access_group_members",
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
    )
    op.add_column("model_access_groups", sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False))
    op.create_unique_constraint(op.f("uq_model_access_groups_id"), "model_access_groups", ["id"])
    op.add_column("virtual_keys", sa.Column("key_alias", sa.Text(), nullable=True))
    op.add_column("virtual_keys", sa.Column("user_id", sa.Text(), nullable=True))
    op.add_column("virtual_keys", sa.Column("models", postgresql.ARRAY(sa.Text()), nullable=True))
    op.add_column("virtual_keys", sa.Column("rpm_limit", sa.Integer(), nullable=True))
    op.add_column("virtual_keys", sa.Column("tpm_limit", sa.Integer(), nullable=True))
    op.add_column(
        "virtual_keys",
        sa.Column(
            "max_parallel_requests",
            sa.Integer(),
            nullable=True,
            comment="unfinished calls of the key; one more is refused",
        ),
    )
    op.add_column("virtual_keys", sa.Column("key_type", sa.Text(), server_default="default", nullable=False))
    op.add_column("virtual_keys", sa.Column("allowed_routes", postgresql.ARRAY(sa.Text()), nullable=True))
    op.add_column(
        "virtual_keys",
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
    )
    op.add_column("virtual_keys", sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "virtual_keys",
        sa.Column(
            "secret_of",
            sa.Uuid(),
            nullable=True,
            comment="set on a replaced secret, which opens that key until revoked_at",
        ),
    )
    op.add_column("virtual_keys", sa.Column("created_by", sa.Text(), nullable=True))
    op.add_column(
        "virtual_keys",
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
    )
    op.create_index(op.f("ix_virtual_keys_secret_of"), "virtual_keys", ["secret_of"], unique=False)
    op.create_unique_constraint(op.f("uq_virtual_keys_key_alias"), "virtual_keys", ["key_alias"])
    op.create_foreign_key(
        op.f("fk_virtual_keys_secret_of"), "virtual_keys", "virtual_keys", ["secret_of"], ["id"], ondelete="CASCADE"
    )
    # ### end Alembic commands ###
    op.create_check_constraint(
        op.f("ck_credit_accounts_refill_period"),
        "credit_accounts",
        "refill_period in ('monthly', 'weekly', 'daily')",
    )
    op.create_check_constraint(
        op.f("ck_credit_accounts_auto_refill"),
        "credit_accounts",
        "not auto_refill or (refill_amount > 0 and refill_period is not null and next_refill_at is not null)",
    )
    op.execute(USAGE_SO_FAR)
    op.execute(OPEN_ESTIMATES)


def downgrade() -> None:
    """Back to the revision before."""
    op.drop_constraint(op.f("ck_credit_accounts_auto_refill"), "credit_accounts")
    op.drop_constraint(op.f("ck_credit_accounts_refill_period"), "credit_accounts")
    op.drop_constraint(op.f("fk_virtual_keys_secret_of"), "virtual_keys", type_="foreignkey")
    op.drop_constraint(op.f("uq_virtual_keys_key_alias"), "virtual_keys", type_="unique")
    op.drop_index(op.f("ix_virtual_keys_secret_of"), table_name="virtual_keys")
    op.drop_column("virtual_keys", "updated_at")
    op.drop_column("virtual_keys", "created_by")
    op.drop_column("virtual_keys", "secret_of")
    op.drop_column("virtual_keys", "revoked_at")
    op.drop_column("virtual_keys", "metadata")
    op.drop_column("virtual_keys", "allowed_routes")
    op.drop_column("virtual_keys", "key_type")
    op.drop_column("virtual_keys", "max_parallel_requests")
    op.drop_column("virtual_keys", "tpm_limit")
    op.drop_column("virtual_keys", "rpm_limit")
    op.drop_column("virtual_keys", "models")
    op.drop_column("virtual_keys", "user_id")
    op.drop_column("virtual_keys", "key_alias")
    op.drop_constraint(op.f("uq_model_access_groups_id"), "model_access_groups", type_="unique")
    op.drop_column("model_access_groups", "id")
    op.drop_column("model_access_group_members", "created_at")
    op.drop_column("model_access_group_members", "id")
    op.drop_index(
        "ix_jobs_team_id_created_at_id",
        table_name="jobs",
        postgresql_include=["status", "job_type", "user_id", "started_at", "completed_at", "client_cost_nanousd"],
    )
    op.drop_index(
        "ix_jobs_external_task_id", table_name="jobs", postgresql_where=sa.text("external_task_id is not null")
    )
    op.drop_index("ix_jobs_created_at_id", table_name="jobs", postgresql_include=["status", "job_type"])
    op.create_index(op.f("ix_jobs_team_id_created_at"), "jobs", ["team_id", "created_at"], unique=False)
    op.alter_column(
        "jobs",
        "budget_mode",
        existing_type=sa.TEXT(),
        comment="the team's when the first call was accepted",
        existing_comment="the team's when the first call was accepted, like the three below",
        existing_nullable=True,
    )
    op.drop_column("jobs", "credits_lost")
    op.drop_column("jobs", "estimate_tokens")
    op.drop_column("jobs", "estimate_nanousd")
    op.drop_column("jobs", "tokens_per_credit")
    op.drop_column("jobs", "credits_per_dollar")
    op.drop_index(
        "uq_credit_entries_team_id_refill_at",
        table_name="credit_entries",
        postgresql_where=sa.text("refill_at is not null"),
    )
    op.drop_column("credit_entries", "refill_at")
    op.drop_column("credit_entries", "payment_nanousd")
    op.drop_index(
        "ix_credit_accounts_next_refill_at", table_name="credit_accounts", postgresql_where=sa.text("auto_refill")
    )
    op.alter_column(
        "credit_accounts",
        "credit_limit",
        existing_type=sa.BIGINT(),
        comment=None,
        existing_comment="ceiling of used + held",
        existing_nullable=True,
    )
    op.drop_column("credit_accounts", "next_refill_at")
    op.drop_column("credit_accounts", "last_refill_at")
    op.drop_column("credit_accounts", "refill_day")
    op.drop_column("credit_accounts", "refill_period")
    op.drop_column("credit_accounts", "refill_amount")
    op.drop_column("credit_accounts", "auto_refill")
    op.drop_column("credit_accounts", "alerted_percentage")
    op.drop_index(
        "ix_calls_key_unfinished", table_name="calls", postgresql_where=sa.text("state in ('pending', 'in_progress')")
    )
    op.drop_index(
        "ix_calls_team_unfinished", table_name="calls", postgresql_where=sa.text("state in ('pending', 'in_progress')")
    )
    op.create_index(
        op.f("ix_calls_team_unfinished"),
        "calls",
        ["team_id"],
        unique=False,
        postgresql_where="(state = ANY (ARRAY['pending'::text, 'in_progress'::text]))",
    )
    op.drop_column("calls", "budget_ids")
    op.drop_column("calls", "key_id")
    op.drop_column("calls", "estimate_nanousd")
    op.drop_index(
        "ix_call_payloads_erase_at", table_name="call_payloads", postgresql_where=sa.text("erase_at is not null")
    )
    op.drop_column("call_payloads", "erase_at")
    op.drop_column("attempts", "credential_id")
    op.drop_table("budgets")
    op.drop_index(
        "uq_provider_credentials_active", table_name="provider_credentials", postgresql_where=sa.text("is_active")
    )
    op.drop_table("provider_credentials")
    op.drop_index(op.f("ix_admin_sessions_user_id"), table_name="admin_sessions")
    op.drop_index("ix_admin_sessions_expires_at", table_name="admin_sessions")
    op.drop_table("admin_sessions")
    op.drop_index("ix_usage_daily_model", table_name="usage_daily", postgresql_where=sa.text("model <> ''"))
    op.drop_table("usage_daily")
    op.drop_index("ix_login_failures_ip_address", table_name="login_failures")
    op.drop_index("ix_login_failures_email", table_name="login_failures")
    op.drop_table("login_failures")
    op.drop_index("ix_idempotency_keys_expires_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index("ix_audit_log_created_at", table_name="audit_log")
    op.drop_table("audit_log")
    op.drop_table("admin_users")
    # ### end Alembic commands ###
    for table in ("organizations", "teams"):
        op.drop_constraint(op.f(f"ck_{table}_status"), table)
        op.create_check_constraint(op.f(f"ck_{table}_status"), table, STATUS)
