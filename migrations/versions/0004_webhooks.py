"""Webhooks: queues with circuits, keys that rotate, replays, and what is seen of an attempt.

Deliveries made by processes of the version before have no queue: stop api and workers before this runs.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

# A callback's queue is that of its team and the origin of its URL, as in shared/outbox.py.
FILL = """
update deliveries d
   set event_type = coalesce(e.type, 'unknown'),
       queue_id = coalesce(d.endpoint_id, md5(d.team_id || chr(10) || lower(substring(
           case d.callback when 'job' then j.callback_url else c.callback_url end from '^[^:]+://[^/?#]+')))::uuid, d.id)
  from deliveries s
  left join events e on e.id = s.event_id
  left join jobs j on j.id = s.job_id
  left join calls c on c.id = e.subject_id
 where d.id = s.id
"""

CREATED = "update webhook_endpoints set secret_created_at = created_at, active_since = created_at"

QUEUES = """
insert into delivery_queues (id, team_id, endpoint_id)
select id, team_id, id from webhook_endpoints
 union select distinct queue_id, team_id, endpoint_id from deliveries where endpoint_id is null
"""

PARTIAL = (
    ("ix_webhook_endpoints_progress", "webhook_endpoints", ["team_id"], "'job.progress' = any (events)"),
    ("ix_webhook_endpoints_failing_since", "webhook_endpoints", ["failing_since"], "failing_since is not null"),
    (
        "ix_jobs_progress",
        "jobs",
        ["id"],
        "status in ('pending', 'in_progress') and 'job.progress' = any (callback_events)",
    ),
    ("ix_deliveries_team_id_unsent", "deliveries", ["team_id", "id"], "state in ('pending', 'failing')"),
    ("ix_deliveries_team_id_dead", "deliveries", ["team_id", "id"], "state in ('exhausted', 'aborted', 'discarded')"),
    (
        "ix_deliveries_progress",
        "deliveries",
        ["job_id"],
        "event_type = 'job.progress' and state in ('pending', 'failing')",
    ),
)

CHECKS = (
    ("webhook_endpoints", "signing", "signing in ('v1', 'v1a', 'both')"),
    ("webhook_endpoints", "payload", "payload in ('thin', 'full')"),
    ("webhook_endpoints", "deleted", "deleted_at is null or status = 'disabled'"),
    ("deliveries", "trigger", "trigger in ('scheduled', 'manual', 'replay', 'test')"),
)


def upgrade() -> None:
    op.create_table(
        "delivery_queues",
        sa.Column(
            "id", sa.Uuid(), nullable=False, comment="the endpoint's id, or a hash of team and origin for callbacks"
        ),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=True),
        sa.Column("failures_in_a_row", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "open_s",
            sa.Float(),
            server_default="0",
            nullable=False,
            comment="how long the circuit was opened; 0: closed",
        ),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tokens", sa.Float(), nullable=True, comment="of max_rate_per_s, at refilled_at"),
        sa.Column("refilled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_full", sa.Boolean(), server_default="false", nullable=False),
        sa.Column(
            "leased",
            postgresql.ARRAY(sa.Uuid()),
            server_default="{}",
            nullable=False,
            comment="deliveries claimed and perhaps still under way",
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_queues")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_table(
        "replays",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("filter", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("id_mode", sa.Text(), server_default="same", nullable=False),
        sa.Column("rate_per_s", sa.Float(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("until_seq", sa.BigInteger(), nullable=False, comment="the end of the log when it was asked for"),
        sa.Column("next_seq", sa.BigInteger(), nullable=False, comment="events from here on are still to be looked at"),
        sa.Column("matched", sa.Integer(), server_default="0", nullable=False),
        sa.Column("made", sa.Integer(), server_default="0", nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state in ('running', 'finished', 'cancelled')", name=op.f("ck_replays_state")),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], name=op.f("fk_replays_endpoint_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replays")),
    )
    op.create_index("ix_replays_endpoint_id_created_at", "replays", ["endpoint_id", "created_at"], unique=False)
    op.create_index(
        "ix_replays_running", "replays", ["made_at"], unique=False, postgresql_where=sa.text("state = 'running'")
    )
    op.create_table(
        "webhook_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=True),
        sa.Column("team_id", sa.Text(), nullable=True, comment="whose callbacks it signs"),
        sa.Column("kind", sa.Text(), server_default="v1", nullable=False),
        sa.Column("key_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=True, comment="of v1a: whpk_ and base64"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind in ('v1', 'v1a')", name=op.f("ck_webhook_keys_kind")),
        sa.CheckConstraint("(endpoint_id is null) <> (team_id is null)", name=op.f("ck_webhook_keys_owner")),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], name=op.f("fk_webhook_keys_endpoint_id")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_webhook_keys_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_keys")),
    )
    op.create_index(op.f("ix_webhook_keys_endpoint_id"), "webhook_keys", ["endpoint_id"], unique=False)
    op.create_index(op.f("ix_webhook_keys_team_id"), "webhook_keys", ["team_id"], unique=False)
    op.add_column("deliveries", sa.Column("event_type", sa.Text(), nullable=True))
    op.add_column("deliveries", sa.Column("queue_id", sa.Uuid(), nullable=True))
    op.execute(FILL)
    op.alter_column("deliveries", "event_type", nullable=False)
    op.alter_column("deliveries", "queue_id", nullable=False)
    op.add_column(
        "deliveries",
        sa.Column(
            "body",
            sa.Text(),
            nullable=True,
            comment="its own: an example, or with the answer in full; null: the event's",
        ),
    )
    op.add_column(
        "deliveries",
        sa.Column("trigger", sa.Text(), server_default="scheduled", nullable=False, comment="of its next attempt"),
    )
    op.add_column(
        "deliveries",
        sa.Column(
            "schedule_from",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="tries before it began anew",
        ),
    )
    op.drop_index(
        op.f("ix_deliveries_due"),
        table_name="deliveries",
        postgresql_where="(state = ANY (ARRAY['pending'::text, 'failing'::text]))",
    )
    op.create_index(
        "ix_deliveries_endpoint_id_id",
        "deliveries",
        ["endpoint_id", "id"],
        unique=False,
        postgresql_include=["trigger"],
    )
    op.create_index(
        "ix_deliveries_queue_id_due",
        "deliveries",
        ["queue_id", "next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("state in ('pending', 'failing')"),
    )
    op.create_index(
        "ix_deliveries_replay_id",
        "deliveries",
        ["replay_id"],
        unique=False,
        postgresql_where=sa.text("replay_id is not null"),
    )
    op.create_index(
        "ix_deliveries_team_id_id", "deliveries", ["team_id", "id"], unique=False, postgresql_include=["trigger"]
    )
    op.add_column("delivery_attempts", sa.Column("dns_ms", sa.Integer(), nullable=True))
    op.add_column("delivery_attempts", sa.Column("connect_ms", sa.Integer(), nullable=True))
    op.add_column("delivery_attempts", sa.Column("first_byte_ms", sa.Integer(), nullable=True))
    op.add_column(
        "delivery_attempts",
        sa.Column(
            "request_headers",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="values of secret ones left out",
        ),
    )
    op.add_column(
        "delivery_attempts", sa.Column("response_headers", postgresql.JSONB(astext_type=sa.Text()), nullable=True)
    )
    op.add_column("delivery_attempts", sa.Column("redirect_target", sa.Text(), nullable=True))
    op.alter_column(
        "delivery_attempts",
        "response_head",
        existing_type=sa.TEXT(),
        comment="the first 1,000 bytes of the answer",
        existing_nullable=True,
    )
    op.alter_column(
        "events",
        "seq",
        existing_type=sa.BIGINT(),
        comment="in commit order within a team",
        existing_nullable=False,
        existing_server_default=sa.Identity(
            always=True, start=1, increment=1, minvalue=1, maxvalue=9223372036854775807, cycle=False, cache=1
        ),
    )
    op.add_column(
        "webhook_endpoints",
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
    )
    op.add_column(
        "webhook_endpoints", sa.Column("secret_id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False)
    )
    op.add_column(
        "webhook_endpoints",
        sa.Column("secret_created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
    )
    op.add_column("webhook_endpoints", sa.Column("payload", sa.Text(), server_default="thin", nullable=False))
    op.add_column("webhook_endpoints", sa.Column("timeout_s", sa.Float(), nullable=True, comment="null: the setting"))
    op.add_column(
        "webhook_endpoints",
        sa.Column(
            "retry_schedule_s",
            postgresql.ARRAY(sa.Float()),
            nullable=True,
            comment="delays between tries; null: the setting",
        ),
    )
    op.add_column("webhook_endpoints", sa.Column("max_rate_per_s", sa.Float(), nullable=True))
    op.add_column("webhook_endpoints", sa.Column("max_concurrency", sa.Integer(), server_default="5", nullable=False))
    op.add_column("webhook_endpoints", sa.Column("verify", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("webhook_endpoints", sa.Column("ordered", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("webhook_endpoints", sa.Column("failed_attempts", sa.Integer(), server_default="0", nullable=False))
    op.add_column("webhook_endpoints", sa.Column("noticed_percent", sa.Integer(), server_default="0", nullable=False))
    op.add_column(
        "webhook_endpoints",
        sa.Column("active_since", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
    )
    op.add_column("webhook_endpoints", sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("webhook_endpoints", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    for name, table, column, condition in PARTIAL:
        op.create_index(name, table, column, unique=False, postgresql_where=sa.text(condition))
    op.drop_column("deliveries", "rung_at")
    op.add_column("idempotency_keys", sa.Column("delivery_id", sa.Uuid(), nullable=True, comment="of a test"))
    op.execute(CREATED)
    for table, name, condition in CHECKS:
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    op.execute(QUEUES)


def downgrade() -> None:
    op.drop_column("idempotency_keys", "delivery_id")
    op.add_column("deliveries", sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True))
    for name, table, _, _ in PARTIAL:
        op.drop_index(name, table_name=table)
    for table, name, _ in CHECKS:
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    op.drop_column("webhook_endpoints", "deleted_at")
    op.drop_column("webhook_endpoints", "disabled_at")
    op.drop_column("webhook_endpoints", "active_since")
    op.drop_column("webhook_endpoints", "noticed_percent")
    op.drop_column("webhook_endpoints", "failed_attempts")
    op.drop_column("webhook_endpoints", "ordered")
    op.drop_column("webhook_endpoints", "verify")
    op.drop_column("webhook_endpoints", "max_concurrency")
    op.drop_column("webhook_endpoints", "max_rate_per_s")
    op.drop_column("webhook_endpoints", "retry_schedule_s")
    op.drop_column("webhook_endpoints", "timeout_s")
    op.drop_column("webhook_endpoints", "payload")
    op.drop_column("webhook_endpoints", "secret_created_at")
    op.drop_column("webhook_endpoints", "secret_id")
    op.drop_column("webhook_endpoints", "metadata")
    op.alter_column(
        "events",
        "seq",
        existing_type=sa.BIGINT(),
        comment=None,
        existing_comment="in commit order within a team",
        existing_nullable=False,
        existing_server_default=sa.Identity(
            always=True, start=1, increment=1, minvalue=1, maxvalue=9223372036854775807, cycle=False, cache=1
        ),
    )
    op.alter_column(
        "delivery_attempts",
        "response_head",
        existing_type=sa.TEXT(),
        comment=None,
        existing_comment="the first 1,000 bytes of the answer",
        existing_nullable=True,
    )
    op.drop_column("delivery_attempts", "redirect_target")
    op.drop_column("delivery_attempts", "response_headers")
    op.drop_column("delivery_attempts", "request_headers")
    op.drop_column("delivery_attempts", "first_byte_ms")
    op.drop_column("delivery_attempts", "connect_ms")
    op.drop_column("delivery_attempts", "dns_ms")
    op.drop_index("ix_deliveries_team_id_id", table_name="deliveries", postgresql_include=["trigger"])
    op.drop_index("ix_deliveries_replay_id", table_name="deliveries", postgresql_where=sa.text("replay_id is not null"))
    op.drop_index(
        "ix_deliveries_queue_id_due",
        table_name="deliveries",
        postgresql_where=sa.text("state in ('pending', 'failing')"),
    )
    op.drop_index("ix_deliveries_endpoint_id_id", table_name="deliveries", postgresql_include=["trigger"])
    op.create_index(
        op.f("ix_deliveries_due"),
        "deliveries",
        ["next_attempt_at"],
        unique=False,
        postgresql_where="(state = ANY (ARRAY['pending'::text, 'failing'::text]))",
    )
    op.drop_column("deliveries", "schedule_from")
    op.drop_column("deliveries", "trigger")
    op.drop_column("deliveries", "body")
    op.drop_column("deliveries", "queue_id")
    op.drop_column("deliveries", "event_type")
    op.drop_index(op.f("ix_webhook_keys_team_id"), table_name="webhook_keys")
    op.drop_index(op.f("ix_webhook_keys_endpoint_id"), table_name="webhook_keys")
    op.drop_table("webhook_keys")
    op.drop_index("ix_replays_running", table_name="replays", postgresql_where=sa.text("state = 'running'"))
    op.drop_index("ix_replays_endpoint_id_created_at", table_name="replays")
    op.drop_table("replays")
    op.drop_table("delivery_queues")
