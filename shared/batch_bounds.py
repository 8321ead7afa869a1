"""How much of batches a team may have at once: batches that wait for their check, and lines that have not ended.

There is no lock: batches that are made at one moment may pass a bound together. The lines are counted once more when a
batch is accepted, with the team's account locked, and there none passes.
"""

from dataclasses import dataclass

from shared.db import Tx, hot
from shared.errors import TooManyRequests

CHECKS_AGAIN_S = 10
LINES_AGAIN_S = 60
"""After so long a client may try again."""

# An index has just these statuses: few rows, whatever was run before.
READ = """
select count(*) filter (where b.status = 'validating' and not (b.dry_run and b.expires_at <= app_now())) as checks,
       coalesce(sum(j.calls_total - j.calls_completed - j.calls_failed - j.calls_cancelled), 0)::bigint as lines
  from batches b left join jobs j on j.id = b.id
 where b.team_id = %s and b.status in ('validating', 'in_progress', 'finalizing', 'cancelling')
"""


@dataclass(frozen=True, kw_only=True)
class Underway:
    """What a team has: batches and dry runs that wait for their check, and lines of batches that have not ended."""

    checks: int
    lines: int

    def check_new(self, *, most_checks: int, most_lines: int) -> None:
        """Whether one more batch may come. Raises TooManyRequests."""
        if self.checks >= most_checks:
            told = f"Queue limit exceeded: {self.checks:,} batches of this team wait for their check"
            raise TooManyRequests(told, retry_after_s=CHECKS_AGAIN_S)
        if self.lines >= most_lines:
            raise too_many_lines(self.lines, 0, most_lines)

    def check_lines(self, new: int, *, most_lines: int) -> None:
        """Whether so many lines more may come. Raises TooManyRequests."""
        if self.lines + new > most_lines:
            raise too_many_lines(self.lines, new, most_lines)


def too_many_lines(unfinished: int, new: int, most: int) -> TooManyRequests:
    """What a team is told whose lines are too many."""
    more = f", this batch has {new:,} more" if new else ""
    told = f"Queue limit exceeded: {unfinished:,} lines of this team have not ended{more}, and {most:,} are taken"
    return TooManyRequests(told, retry_after_s=LINES_AGAIN_S)


async def read(tx: Tx, team_id: str) -> Underway:
    """What a team has just now."""
    [row] = await hot(tx, READ, (team_id,))
    return Underway(**row._asdict())
