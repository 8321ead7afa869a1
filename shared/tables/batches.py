"""Batches, the files they read and write, and how fast each provider takes their lines.

A batch is a job with the same id; its lines are that job's calls (`calls.batched`).
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.states import BatchStatus, Endpoint, FilePurpose, FileStatus
from shared.tables.columns import count, flag, metadata, state, time, words

files = Table(
    "files",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="uploading"),
    Column("filename", Text, nullable=False),
    count("bytes", BigInteger),
    time("created_at", default=True),
    time("expires_at", required=True),
    state("purpose", FilePurpose),
    state("status", FileStatus),
    Index("ix_files_team_id_id", "team_id", "id"),
    Index("ix_files_expires_at", "expires_at"),
    Index("ix_files_uploading", "created_at", postgresql_where=text("status = 'uploading'")),
)

file_chunks = Table(
    "file_chunks",
    metadata,
    Column("file_id", Uuid, ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, comment="from 0; every chunk but the last has 1 MiB"),
    Column(
        "bytes", LargeBinary, nullable=False, comment="stored outside the row and not packed, so that parts are read"
    ),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True, comment="its job's id too; the job of a dry run is never made"),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("key_id", Uuid, nullable=False, comment="the virtual key that brought it"),
    Column("endpoint", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="validating"),
    flag("dry_run"),
    Column("input_file_id", Uuid, nullable=False, comment="the file may be gone once no line waits for it"),
    Column("completion_window", Text, nullable=False, comment="as the client wrote it"),
    Column("retry_of", Uuid, comment="the batch whose lines these are"),
    words("retry_statuses"),
    words("retry_codes"),
    Column("errors", JSONB, comment="why it was refused: [{code, message, param, line}], the first 1,000"),
    count("lines"),
    words("models"),
    count("estimated_tokens", BigInteger),
    count("estimated_nanousd", BigInteger),
    count("credits_needed", BigInteger),
    Column("output_expires_after_s", Integer),
    Column("output_file_id", Uuid),
    Column("error_file_id", Uuid),
    Column("error_summary", JSONB, comment="[{code, count}], once it is final"),
    Column("worker", Text, comment="who checks it or writes its files, until lease_expires_at"),
    time("lease_expires_at"),
    time("created_at", default=True),
    time("expires_at", required=True),
    time("in_progress_at"),
    time("finalizing_at"),
    time("completed_at"),
    time("failed_at"),
    time("expired_at"),
    time("cancelling_at"),
    time("cancelled_at"),
    state("status", BatchStatus),
    state("endpoint", Endpoint),
    CheckConstraint(
        "status not in ('completed', 'expired', 'cancelled') or output_file_id is not null or lines = 0",
        name="final_has_output",
    ),
    Index("ix_batches_team_id_id", "team_id", "id", postgresql_where=text("not dry_run")),
    Index("ix_batches_dry_run", "created_at", postgresql_where=text("dry_run")),
    Index("ix_batches_retry_of", "retry_of", postgresql_where=text("retry_of is not null")),
    Index(
        "ix_batches_unattended",
        "lease_expires_at",
        postgresql_where=text("status in ('validating', 'finalizing', 'cancelling')"),
    ),
    Index(
        "ix_batches_input_file_id",
        "input_file_id",
        postgresql_where=text("status in ('validating', 'in_progress', 'finalizing', 'cancelling')"),
    ),
)

provider_slowdowns = Table(
    "provider_slowdowns",
    metadata,
    Column("provider", Text, primary_key=True),
    time("refused_at", required=True),
    time("until", required=True),
    Column("in_flight", Integer, nullable=False, comment="lines that may run there at once when it was refused last"),
)
