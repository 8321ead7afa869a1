"""Who may administer, what they did, and the keys under which a repeated POST is known."""

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from shared.tables.columns import flag, metadata, metadata_column, one_of, time

ROLES = ("owner", "admin", "user")

admin_users = Table(
    "admin_users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False, unique=True, comment="lower case"),
    Column("display_name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password_hash", Text, nullable=False, comment="argon2id"),
    flag("is_active", default=True),
    metadata_column(),
    Column("created_by", Text),
    time("last_login_at"),
    time("created_at", default=True),
    time("updated_at", default=True),
    one_of("role", ROLES, "role"),
)

admin_sessions = Table(
    "admin_sessions",
    metadata,
    Column("hash", LargeBinary, primary_key=True, comment="SHA-256 of the token"),
    Column("user_id", Uuid, ForeignKey("admin_users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("ip_address", Text),
    time("expires_at", required=True),
    time("created_at", default=True),
    Index("ix_admin_sessions_expires_at", "expires_at"),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False),
    Column("ip_address", Text, nullable=False),
    time("created_at", default=True),
    Index("ix_login_failures_email", "email", "created_at"),
    Index("ix_login_failures_ip_address", "ip_address", "created_at"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Text, nullable=False, comment="an admin user's id, or admin_key"),
    Column("action", Text, nullable=False),
    Column("resource_type", Text, nullable=False),
    Column("resource_id", Text),
    Column("details", JSONB, nullable=False, server_default="{}"),
    Column("ip_address", Text),
    time("created_at", default=True),
    Index("ix_audit_log_created_at", "created_at", "id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", LargeBinary, primary_key=True, comment="SHA-256 of caller, method, path and key"),
    Column("request", LargeBinary, nullable=False, comment="SHA-256 of query and body"),
    Column("job_id", Uuid),
    Column("call_id", Uuid),
    Column("delivery_id", Uuid, comment="of a test"),
    Column("status", Integer),
    Column("answer_sealed", LargeBinary, comment="headers and body; null: rebuilt from the call or job"),
    time("created_at", default=True),
    time("expires_at", required=True),
    Index("ix_idempotency_keys_expires_at", "expires_at"),
)
