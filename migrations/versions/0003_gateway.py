"""The gateway: calls that ask for completions and embeddings or are streamed, and what its keys carry."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "calls",
        sa.Column("endpoint", sa.Text(), server_default="chat", nullable=False, comment="what the model is asked for"),
    )
    op.add_column("calls", sa.Column("stream", sa.Boolean(), server_default="false", nullable=False))
    op.add_column(
        "calls",
        sa.Column(
            "retries", sa.Integer(), nullable=True, comment="tries per candidate after the first; null: the setting"
        ),
    )
    op.add_column(
        "calls",
        sa.Column(
            "client_call_id", sa.Text(), nullable=True, comment="the client's own name for it: x-litellm-call-id"
        ),
    )
    op.add_column(
        "attempts",
        sa.Column("chunks", sa.Integer(), nullable=True, comment="chunks delivered, of a stream that ended well"),
    )
    op.create_check_constraint(op.f("ck_calls_endpoint"), "calls", "endpoint in ('chat', 'completion', 'embedding')")
    op.add_column(
        "virtual_keys",
        sa.Column(
            "aliases",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="asked name -> the name it stands for",
        ),
    )
    op.add_column("virtual_keys", sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.add_column(
        "virtual_keys",
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="fields that are kept and shown, no more",
        ),
    )
    op.add_column("virtual_keys", sa.Column("updated_by", sa.Text(), nullable=True))
    op.add_column("virtual_keys", sa.Column("last_active_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_virtual_keys_key_type"),
        "virtual_keys",
        "key_type in ('default', 'llm_api', 'management', 'read_only')",
    )
    op.create_index(
        "ix_virtual_keys_user_id",
        "virtual_keys",
        ["user_id"],
        unique=False,
        postgresql_where=sa.text("user_id is not null"),
    )
    op.create_index(
        "ix_usage_daily_key_id",
        "usage_daily",
        ["key_id"],
        unique=False,
        postgresql_where=sa.text("model <> ''"),
    )


def downgrade() -> None:
    op.drop_index("ix_usage_daily_key_id", table_name="usage_daily", postgresql_where=sa.text("model <> ''"))
    op.drop_index("ix_virtual_keys_user_id", table_name="virtual_keys", postgresql_where=sa.text("user_id is not null"))
    op.drop_constraint(op.f("ck_virtual_keys_key_type"), "virtual_keys")
    op.drop_column("virtual_keys", "last_active_at")
    op.drop_column("virtual_keys", "updated_by")
    op.drop_column("virtual_keys", "extra")
    op.drop_column("virtual_keys", "tags")
    op.drop_column("virtual_keys", "aliases")
    op.drop_constraint(op.f("ck_calls_endpoint"), "calls")
    op.drop_column("attempts", "chunks")
    op.drop_column("calls", "client_call_id")
    op.drop_column("calls", "retries")
    op.drop_column("calls", "stream")
    op.drop_column("calls", "endpoint")
