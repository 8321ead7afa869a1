"""Usage rolled up per day in the transaction that ends a call or a job: a small read over any number of calls."""

from sqlalchemy import BigInteger, Column, Date, Index, PrimaryKeyConstraint, Table, Text, Uuid, text

from shared.tables.columns import QUEUE_STORAGE, count, metadata

NO_KEY = "00000000-0000-0000-0000-000000000000"

usage_daily = Table(
    "usage_daily",
    metadata,
    Column("team_id", Text, nullable=False),
    Column("day", Date, nullable=False, comment="UTC day on which the job was created"),
    Column("job_type", Text, nullable=False),
    Column("model", Text, nullable=False, server_default="", comment="the asked name; empty on the line of jobs"),
    Column("provider", Text, nullable=False, server_default="", comment="empty on the line of jobs, or never sent"),
    Column("key_id", Uuid, nullable=False, server_default=text(f"'{NO_KEY}'"), comment="zeros on the line of jobs"),
    count("jobs_completed", BigInteger),
    count("jobs_failed", BigInteger),
    count("jobs_cancelled", BigInteger),
    count("credits_charged", BigInteger),
    count("calls_completed", BigInteger),
    count("calls_failed", BigInteger),
    count("calls_cancelled", BigInteger),
    count("prompt_tokens", BigInteger),
    count("completion_tokens", BigInteger),
    count("client_cost_nanousd", BigInteger),
    count("provider_cost_nanousd", BigInteger),
    count("latency_sum_ms", BigInteger),
    PrimaryKeyConstraint("team_id", "day", "job_type", "model", "provider", "key_id"),
    Index("ix_usage_daily_model", "model", postgresql_where=text("model <> ''")),
    Index("ix_usage_daily_key_id", "key_id", postgresql_where=text("model <> ''")),
    **QUEUE_STORAGE,
)
