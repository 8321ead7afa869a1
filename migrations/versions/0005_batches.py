"""Batches: files, batches, lines among the calls, and what slows a provider down.

Indexes that tell lines from other calls are made anew: stop api and workers before this runs.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "provider_slowdowns",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "in_flight",
            sa.Integer(),
            nullable=False,
            comment="lines that may run there at once when it was refused last",
        ),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_provider_slowdowns")),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False, comment="its job's id too; the job of a dry run is never made"),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False, comment="the virtual key that brought it"),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="validating", nullable=False),
        sa.Column("dry_run", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("input_file_id", sa.Uuid(), nullable=False, comment="the file may be gone once no line waits for it"),
        sa.Column("completion_window", sa.Text(), nullable=False, comment="as the client wrote it"),
        sa.Column("retry_of", sa.Uuid(), nullable=True, comment="the batch whose lines these are"),
        sa.Column("retry_statuses", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("retry_codes", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column(
            "errors",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="why it was refused: [{code, message, param, line}], the first 1,000",
        ),
        sa.Column("lines", sa.Integer(), server_default="0", nullable=False),
        sa.Column("models", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("estimated_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("estimated_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("credits_needed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_expires_after_s", sa.Integer(), nullable=True),
        sa.Column("output_file_id", sa.Uuid(), nullable=True),
        sa.Column("error_file_id", sa.Uuid(), nullable=True),
        sa.Column(
            "error_summary",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="[{code, count}], once it is final",
        ),
        sa.Column(
            "worker", sa.Text(), nullable=True, comment="who checks it or writes its files, until lease_expires_at"
        ),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("in_progress_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finalizing_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelling_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("endpoint in ('chat', 'completion', 'embedding')", name=op.f("ck_batches_endpoint")),
        sa.CheckConstraint(
            "status in ('validating', 'in_progress', 'finalizing', 'completed', 'failed', 'expired', 'cancelling', 'cancelled')",
            name=op.f("ck_batches_status"),
        ),
        sa.CheckConstraint(
            "status not in ('completed', 'expired', 'cancelled') or output_file_id is not null or lines = 0",
            name=op.f("ck_batches_final_has_output"),
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_batches_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index("ix_batches_dry_run", "batches", ["created_at"], unique=False, postgresql_where=sa.text("dry_run"))
    op.create_index(
        "ix_batches_input_file_id",
        "batches",
        ["input_file_id"],
        unique=False,
        postgresql_where=sa.text("status in ('validating', 'in_progress', 'finalizing', 'cancelling')"),
    )
    op.create_index(
        "ix_batches_retry_of", "batches", ["retry_of"], unique=False, postgresql_where=sa.text("retry_of is not null")
    )
    op.create_index(
        "ix_batches_team_id_id", "batches", ["team_id", "id"], unique=False, postgresql_where=sa.text("not dry_run")
    )
    op.create_index(
        "ix_batches_unattended",
        "batches",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("status in ('validating', 'finalizing', 'cancelling')"),
    )
    op.create_table(
        "files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="uploading", nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("app_now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("purpose in ('batch', 'batch_output')", name=op.f("ck_files_purpose")),
        sa.CheckConstraint("status in ('uploading', 'processed')", name=op.f("ck_files_status")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_files_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
    )
    op.create_index("ix_files_expires_at", "files", ["expires_at"], unique=False)
    op.create_index("ix_files_team_id_id", "files", ["team_id", "id"], unique=False)
    op.create_index(
        "ix_files_uploading", "files", ["created_at"], unique=False, postgresql_where=sa.text("status = 'uploading'")
    )
    op.create_table(
        "file_chunks",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="from 0; every chunk but the last has 1 MiB"),
        sa.Column(
            "bytes",
            sa.LargeBinary(),
            nullable=False,
            comment="stored outside the row and not packed, so that parts are read",
        ),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("fk_file_chunks_file_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("file_id", "number", name=op.f("pk_file_chunks")),
    )
    op.add_column("calls", sa.Column("batched", sa.Boolean(), server_default="false", nullable=False))
    op.add_column(
        "calls", sa.Column("custom_id", sa.Text(), nullable=True, comment="the client's own name for a line of a batch")
    )
    op.add_column(
        "calls",
        sa.Column(
            "ended_number",
            sa.Integer(),
            nullable=True,
            comment="a line's place among the ended ones of its batch, from 1, without gaps",
        ),
    )
    op.drop_index(
        op.f("ix_calls_job_unfinished"),
        table_name="calls",
        postgresql_where="(state = ANY (ARRAY['pending'::text, 'in_progress'::text]))",
    )
    op.create_index(
        "ix_calls_job_unfinished",
        "calls",
        ["job_id", "state"],
        unique=False,
        postgresql_where=sa.text("state in ('pending', 'in_progress')"),
    )
    op.drop_index(
        op.f("ix_calls_rung"),
        table_name="calls",
        postgresql_where="((state = 'pending'::text) AND (rung_at IS NOT NULL))",
    )
    op.create_index(
        "ix_calls_rung",
        "calls",
        ["batched", "rung_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending' and rung_at is not null"),
    )
    op.drop_index(
        op.f("ix_calls_team_unfinished"),
        table_name="calls",
        postgresql_where="(state = ANY (ARRAY['pending'::text, 'in_progress'::text]))",
    )
    op.create_index(
        "ix_calls_team_unfinished",
        "calls",
        ["team_id", "state", "batched", "rung_at"],
        unique=False,
        postgresql_where=sa.text("state in ('pending', 'in_progress')"),
    )
    op.create_index(
        "ix_calls_job_ended",
        "calls",
        ["job_id", "ended_number"],
        unique=True,
        postgresql_where=sa.text("ended_number is not null"),
    )
    op.create_index(
        "ix_calls_job_failed",
        "calls",
        ["job_id", "error_code"],
        unique=False,
        postgresql_where=sa.text("state = 'failed' and batched"),
    )
    op.create_index(
        "ix_calls_lines_waiting",
        "calls",
        ["team_id", sa.literal_column("priority desc"), "run_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'pending' and rung_at is null and batched"),
    )
    op.create_index(
        "ix_calls_lines_flows",
        "calls",
        [
            "team_id",
            "key_id",
            sa.literal_column("(candidates[candidate + 1])"),
            sa.literal_column("priority desc"),
            "run_at",
            "id",
        ],
        unique=False,
        postgresql_where=sa.text("state = 'pending' and rung_at is null and batched"),
    )
    op.add_column("jobs", sa.Column("is_batch", sa.Boolean(), server_default="false", nullable=False))
    op.add_column(
        "jobs",
        sa.Column(
            "calls_expired",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="of the failed: by the job's deadline",
        ),
    )
    op.add_column("jobs", sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("reasoning_tokens", sa.BigInteger(), server_default="0", nullable=False))
    op.drop_index("ix_calls_waiting", table_name="calls")
    op.create_index(
        "ix_calls_waiting",
        "calls",
        ["team_id", sa.text("priority desc"), "id"],
        postgresql_where=sa.text("state = 'pending' and rung_at is null and not batched"),
    )
    op.drop_index("ix_calls_key_unfinished", table_name="calls")
    op.create_index(
        "ix_calls_key_unfinished",
        "calls",
        ["key_id"],
        postgresql_where=sa.text("state in ('pending', 'in_progress') and not batched"),
    )
    op.create_check_constraint(op.f("ck_calls_lines_are_named"), "calls", "batched = (custom_id is not null)")
    op.execute("alter table file_chunks alter column bytes set storage external")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_calls_lines_are_named"), "calls")
    op.drop_index("ix_calls_key_unfinished", table_name="calls")
    op.create_index(
        "ix_calls_key_unfinished",
        "calls",
        ["key_id"],
        postgresql_where=sa.text("state in ('pending', 'in_progress')"),
    )
    op.drop_index("ix_calls_waiting", table_name="calls")
    op.create_index(
        "ix_calls_waiting",
        "calls",
        ["team_id", sa.text("priority desc"), "id"],
        postgresql_where=sa.text("state = 'pending' and rung_at is null"),
    )
    op.drop_column("jobs", "reasoning_tokens")
    op.drop_column("jobs", "cached_tokens")
    op.drop_column("jobs", "completion_tokens")
    op.drop_column("jobs", "prompt_tokens")
    op.drop_column("jobs", "calls_expired")
    op.drop_column("jobs", "is_batch")
    op.drop_index(
        "ix_calls_lines_flows",
        table_name="calls",
        postgresql_where=sa.text("state = 'pending' and rung_at is null and batched"),
    )
    op.drop_index(
        "ix_calls_lines_waiting",
        table_name="calls",
        postgresql_where=sa.text("state = 'pending' and rung_at is null and batched"),
    )
    op.drop_index("ix_calls_job_failed", table_name="calls", postgresql_where=sa.text("state = 'failed' and batched"))
    op.drop_index("ix_calls_job_ended", table_name="calls", postgresql_where=sa.text("ended_number is not null"))
    op.drop_index(
        "ix_calls_team_unfinished", table_name="calls", postgresql_where=sa.text("state in ('pending', 'in_progress')")
    )
    op.create_index(
        op.f("ix_calls_team_unfinished"),
        "calls",
        ["team_id", "state", "rung_at"],
        unique=False,
        postgresql_where="(state = ANY (ARRAY['pending'::text, 'in_progress'::text]))",
    )
    op.drop_index(
        "ix_calls_rung", table_name="calls", postgresql_where=sa.text("state = 'pending' and rung_at is not null")
    )
    op.create_index(
        op.f("ix_calls_rung"),
        "calls",
        ["rung_at"],
        unique=False,
        postgresql_where="((state = 'pending'::text) AND (rung_at IS NOT NULL))",
    )
    op.drop_index(
        "ix_calls_job_unfinished", table_name="calls", postgresql_where=sa.text("state in ('pending', 'in_progress')")
    )
    op.create_index(
        op.f("ix_calls_job_unfinished"),
        "calls",
        ["job_id"],
        unique=False,
        postgresql_where="(state = ANY (ARRAY['pending'::text, 'in_progress'::text]))",
    )
    op.drop_column("calls", "ended_number")
    op.drop_column("calls", "custom_id")
    op.drop_column("calls", "batched")
    op.drop_table("file_chunks")
    op.drop_index("ix_files_uploading", table_name="files", postgresql_where=sa.text("status = 'uploading'"))
    op.drop_index("ix_files_team_id_id", table_name="files")
    op.drop_index("ix_files_expires_at", table_name="files")
    op.drop_table("files")
    op.drop_index(
        "ix_batches_unattended",
        table_name="batches",
        postgresql_where=sa.text("status in ('validating', 'finalizing', 'cancelling')"),
    )
    op.drop_index("ix_batches_team_id_id", table_name="batches", postgresql_where=sa.text("not dry_run"))
    op.drop_index("ix_batches_retry_of", table_name="batches", postgresql_where=sa.text("retry_of is not null"))
    op.drop_index(
        "ix_batches_input_file_id",
        table_name="batches",
        postgresql_where=sa.text("status in ('validating', 'in_progress', 'finalizing', 'cancelling')"),
    )
    op.drop_index("ix_batches_dry_run", table_name="batches", postgresql_where=sa.text("dry_run"))
    op.drop_table("batches")
    op.drop_table("provider_slowdowns")
