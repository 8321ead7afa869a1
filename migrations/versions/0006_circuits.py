"""Circuits of providers, jobs that are held open while somebody ends them, where the months of a budget begin.

Texts that are not stored say when to look at them. An index of `jobs` is made: what writes there waits for it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("update call_payloads set erase_at = now() where erase_at = 'infinity'")
    op.create_table(
        "provider_circuits",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("litellm_model", sa.Text(), nullable=False),
        sa.Column(
            "credential",
            sa.Text(),
            nullable=False,
            comment="its id, or the alias that has a key of its own; empty: the environment's",
        ),
        sa.Column("failures", sa.Integer(), nullable=False, comment="in a row"),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True, comment="null: closed"),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True, comment="from then on half open"),
        sa.Column("probed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(opened_at is null) = (open_until is null)", name=op.f("ck_provider_circuits_open_until_some_time")
        ),
        sa.PrimaryKeyConstraint("scope", "litellm_model", "credential", name=op.f("pk_provider_circuits")),
    )
    op.add_column("jobs", sa.Column("held_open_until", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_jobs_held_open_until",
        "jobs",
        ["held_open_until"],
        unique=False,
        postgresql_where=sa.text("held_open_until is not null"),
    )
    op.add_column("budgets", sa.Column("anchored_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("budgets", "anchored_at")
    op.drop_index("ix_jobs_held_open_until", table_name="jobs", postgresql_where=sa.text("held_open_until is not null"))
    op.drop_column("jobs", "held_open_until")
    op.drop_table("provider_circuits")
