"""A job keeps the markup it was accepted under; an attempt has its alias's prices from its beginning.

Attempts that nobody reports any more get theirs here. Columns are added and a few rows changed: nothing waits for long.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

PRICED = """
update attempts a
   set input_nanousd_per_mtok = m.input_nanousd_per_mtok, output_nanousd_per_mtok = m.output_nanousd_per_mtok,
       cached_input_nanousd_per_mtok = m.cached_input_nanousd_per_mtok
  from model_aliases m
 where m.alias = a.alias and m.litellm_model = a.litellm_model and a.outcome = 'in_progress'
"""


def upgrade() -> None:
    op.execute(PRICED)
    op.add_column(
        "jobs",
        sa.Column(
            "cost_markup_percentage",
            sa.Numeric(),
            nullable=True,
            comment="the team's when the first call was accepted; null: of a job older than this column too",
        ),
    )


def downgrade() -> None:
    op.drop_column("jobs", "cost_markup_percentage")
