"""Credit accounts, holds, the append-only ledger and USD budgets."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from shared.tables.columns import QUEUE_STORAGE, count, flag, metadata, one_of, time

credit_accounts = Table(
    "credit_accounts",
    metadata,
    Column("team_id", Text, ForeignKey("teams.id"), primary_key=True),
    count("allocated", BigInteger),
    count("used", BigInteger),
    count("held", BigInteger),
    Column("limit_mode", Text, nullable=False, server_default="hard"),
    Column("credit_limit", BigInteger, comment="ceiling of used + held"),
    Column("alerted_percentage", Numeric, nullable=False, server_default="0", comment="highest threshold told of"),
    flag("auto_refill"),
    Column("refill_amount", BigInteger),
    Column("refill_period", Text),
    Column("refill_day", Integer, comment="day of month of a monthly refill, before it is clamped"),
    time("last_refill_at"),
    time("next_refill_at"),
    time("created_at", default=True),
    time("updated_at", default=True),
    one_of("refill_period", ("monthly", "weekly", "daily"), "refill_period"),
    CheckConstraint(
        "not auto_refill or (refill_amount > 0 and refill_period is not null and next_refill_at is not null)",
        name="auto_refill",
    ),
    Index("ix_credit_accounts_next_refill_at", "next_refill_at", postgresql_where=text("auto_refill")),
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
    Column("payment_nanousd", BigInteger, comment="what was paid for the credits, where somebody said it"),
    time("refill_at"),
    time("created_at", default=True),
    CheckConstraint('after = "before" + amount', name="adds_up"),
    one_of(
        "kind",
        ("deduction", "allocation", "refund", "adjustment", "subscription_payment", "one_time_payment"),
        "kind",
    ),
    UniqueConstraint("job_id", "kind"),
    Index(
        "uq_credit_entries_team_id_refill_at",
        "team_id",
        "refill_at",
        unique=True,
        postgresql_where=text("refill_at is not null"),
    ),
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

budgets = Table(
    "budgets",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("key_id", Uuid, ForeignKey("virtual_keys.id", ondelete="CASCADE"), unique=True),
    Column("team_id", Text, ForeignKey("teams.id", ondelete="CASCADE"), unique=True),
    Column("max_nanousd", BigInteger, nullable=False),
    Column("soft_nanousd", BigInteger),
    count("spent_nanousd", BigInteger),
    count("held_nanousd", BigInteger),
    Column("duration", Text, comment="30s, 5m, 2h, 30d, 1mo; null: the budget never resets"),
    time("window_started_at", default=True),
    time("resets_at"),
    # The start of the first window, from which the others are counted.
    time("anchored_at"),
    CheckConstraint("(key_id is null) <> (team_id is null)", name="owner"),
    CheckConstraint("max_nanousd >= 0 and spent_nanousd >= 0 and held_nanousd >= 0", name="positive"),
    **QUEUE_STORAGE,
)
