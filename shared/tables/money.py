"""Credit accounts, holds and the append-only ledger."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from shared.tables.columns import QUEUE_STORAGE, count, metadata, one_of, time

credit_accounts = Table(
    "credit_accounts",
    metadata,
    Column("team_id", Text, ForeignKey("teams.id"), primary_key=True),
    count("allocated", BigInteger),
    count("used", BigInteger),
    count("held", BigInteger),
    Column("limit_mode", Text, nullable=False, server_default="hard"),
    Column("credit_limit", BigInteger),
    time("created_at", default=True),
    time("updated_at", default=True),
    one_of("limit_mode", ("hard", "soft", "unlimited"), "limit_mode"),
    CheckConstraint("held >= 0", name="held"),
    CheckConstraint("limit_mode <> 'hard' or allocated - used - held >= 0", name="never_overspent"),
    **QUEUE_STORAGE,
)

credit_entries = Table(
    "credit_entries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("seq", BigInteger, Identity(always=True), nullable=False, comment="the order in which the balance changed"),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("job_id", Uuid),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False, comment="signed change of credits_remaining"),
    Column("before", BigInteger, nullable=False),
    Column("after", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    time("created_at", default=True),
    CheckConstraint('after = "before" + amount', name="adds_up"),
    one_of(
        "kind",
        ("deduction", "allocation", "refund", "adjustment", "subscription_payment", "one_time_payment"),
        "kind",
    ),
    UniqueConstraint("job_id", "kind"),
    Index("ix_credit_entries_team_id_seq", "team_id", "seq"),
)

holds = Table(
    "holds",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False, index=True),
    Column("credits", BigInteger, nullable=False),
    time("created_at", default=True),
    CheckConstraint("credits > 0", name="credits"),
)
