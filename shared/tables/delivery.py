"""Events, webhook endpoints and deliveries.

No foreign key leads to events or deliveries: those are to be partitioned by month.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from shared.states import DeliveryState
from shared.tables.columns import QUEUE_STORAGE, count, metadata, one_of, state, time, words

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
    time("created_at", default=True),
    Index("ix_events_team_id_seq", "team_id", "seq"),
    Index("uq_events_job_id_sequence", "job_id", "sequence", unique=True, postgresql_where=text("job_id is not null")),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    words("events"),
    Column("status", Text, nullable=False, server_default="active"),
    Column("disabled_reason", Text),
    Column("description", Text),
    Column("signing", Text, nullable=False, server_default="v1"),
    Column("secret_sealed", LargeBinary, nullable=False),
    Column("auth_header_sealed", LargeBinary),
    Column("headers_sealed", LargeBinary),
    Column("last_status", Integer),
    time("last_triggered_at"),
    time("failing_since"),
    count("refused_in_a_row"),
    time("created_at", default=True),
    time("updated_at", default=True),
    one_of("status", ("active", "pending_verification", "disabled"), "status"),
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
    count("attempt"),
    count("attempt_count"),
    Column("worker", Text),
    time("next_attempt_at", default=True),
    time("lease_expires_at"),
    time("rung_at"),
    Column("last_status", Integer),
    Column("last_error", Text),
    time("created_at", default=True),
    time("delivered_at"),
    state("state", DeliveryState),
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
    time("started_at", default=True),
    Column("duration_ms", Integer),
    Column("status_code", Integer),
    Column("error_class", Text),
    Column("error", Text),
    Column("response_head", Text),
)
