"""What the timer has to do in the background, asked for in one look: most of the time there is nothing."""

from dataclasses import dataclass

from shared.db import Tx, hot

# Each part is answered by a partial index that is empty while its feature is not used.
LOOK = """
select exists (select from replays where state = 'running') as replays,
       exists (select from webhook_endpoints where 'job.progress' = any (events) and status = 'active')
       or exists (select from jobs where status in ('pending', 'in_progress')
                     and 'job.progress' = any (callback_events))
       or exists (select from deliveries where event_type = 'job.progress' and state in ('pending', 'failing'))
       as progress
"""


@dataclass(frozen=True, kw_only=True)
class Background:
    """replays: some run. progress: somebody wants to hear of jobs that are on their way, or some news is to be sent."""

    replays: bool
    progress: bool


async def look(tx: Tx) -> Background:
    """As of now."""
    return Background(**(await hot(tx, LOOK))[0]._asdict())
