"""The lines of a team wait in the order of their deadlines: of two batches the one that expires sooner goes first.

Two indexes of `calls` are made anew from what waits, which reads all of the table: what writes there waits for it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

WAITING = ("ix_calls_lines_waiting", ["team_id"])
FLOWS = ("ix_calls_lines_flows", ["team_id", "key_id", sa.literal_column("(candidates[candidate + 1])")])


def upgrade() -> None:
    _order_lines_by("deadline_at", "run_at")


def downgrade() -> None:
    _order_lines_by("run_at")


def _order_lines_by(*columns: str) -> None:
    """After their priority, before their ids."""
    for name, of in (WAITING, FLOWS):
        op.drop_index(name, table_name="calls")
        op.create_index(
            name,
            "calls",
            [*of, sa.literal_column("priority desc"), *columns, "id"],
            unique=False,
            postgresql_where=sa.text("state = 'pending' and rung_at is null and batched"),
        )
