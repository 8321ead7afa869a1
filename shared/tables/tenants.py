"""Organizations, teams and their virtual keys. A deleted one keeps its row: books refer to it, its id is not reused."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.tables.columns import flag, metadata, metadata_column, one_of, time, words

STATUSES = ("active", "suspended", "paused", "deleted")

organizations = Table(
    "organizations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="active"),
    time("paused_until"),
    metadata_column(),
    time("created_at", default=True),
    time("updated_at", default=True),
    one_of("status", STATUSES, "status"),
)

teams = Table(
    "teams",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False, index=True),
    Column("team_alias", Text),
    Column("status", Text, nullable=False, server_default="active"),
    time("paused_until"),
    Column("default_model", Text),
    Column("budget_mode", Text, nullable=False, server_default="job_based"),
    Column("alert_at_percentage", ARRAY(Numeric), nullable=False, server_default="{80,90,100}"),
    Column("credits_per_dollar", Numeric, nullable=False, server_default="10"),
    Column("tokens_per_credit", BigInteger, nullable=False, server_default="10000"),
    Column("cost_markup_percentage", Numeric, nullable=False, server_default="0"),
    flag("charge_failed_calls"),
    Column("rpm_limit", Integer),
    Column("tpm_limit", Integer),
    Column("max_parallel_calls", Integer),
    Column("max_queued_calls", Integer),
    Column("weight", Integer, nullable=False, server_default="1"),
    flag("store_payloads", default=True),
    Column("callback_secret_sealed", LargeBinary, nullable=False),
    metadata_column(),
    time("created_at", default=True),
    time("updated_at", default=True),
    one_of("status", STATUSES, "status"),
    one_of("budget_mode", ("job_based", "consumption_usd", "consumption_tokens"), "budget_mode"),
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
    Column("key_alias", Text, unique=True),
    Column("user_id", Text),
    words("models", required=False),
    Column("rpm_limit", Integer),
    Column("tpm_limit", Integer),
    Column("max_parallel_requests", Integer, comment="unfinished calls of the key; one more is refused"),
    Column("key_type", Text, nullable=False, server_default="default"),
    words("allowed_routes", required=False),
    Column("aliases", JSONB, nullable=False, server_default="{}", comment="asked name -> the name it stands for"),
    words("tags"),
    metadata_column(),
    Column("extra", JSONB, nullable=False, server_default="{}", comment="fields that are kept and shown, no more"),
    flag("blocked"),
    time("expires_at"),
    time("revoked_at"),
    Column(
        "secret_of",
        Uuid,
        ForeignKey("virtual_keys.id", ondelete="CASCADE"),
        index=True,
        comment="set on a replaced secret, which opens that key until revoked_at",
    ),
    Column("created_by", Text),
    Column("updated_by", Text),
    time("last_active_at"),
    time("created_at", default=True),
    time("updated_at", default=True),
    one_of("key_type", ("default", "llm_api", "management", "read_only"), "key_type"),
    Index("ix_virtual_keys_user_id", "user_id", postgresql_where=text("user_id is not null")),
)
