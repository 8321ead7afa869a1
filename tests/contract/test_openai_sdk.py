"""The real openai SDK, in both of its lines, against a running Waybill."""

from pathlib import Path

import pytest

from tests.contract import sdk_child
from tests.contract.sdk_accounts import world_of
from tests.contract.sdk_child import LINES, Line
from tests.invariants import verify
from tests.stack import Stack

CHECKS = ("sdk_chat.py", "sdk_streams.py", "sdk_more.py", "sdk_errors.py", "sdk_batches.py")


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.version)
async def test_the_sdk_works_and_every_call_is_in_the_books_once(stack: Stack, tmp_path: Path, line: Line) -> None:
    world = await world_of(stack, tmp_path)

    printed = await sdk_child.run(line, world, tmp_path, CHECKS)

    assert "passed" in printed
    await verify(stack)
    await every_call_is_a_job_and_in_the_usage(stack, world.told())


async def every_call_is_a_job_and_in_the_usage(stack: Stack, told: set[str]) -> None:
    """What the client was told of is what there is: each call in a job of its own, its batch's, or one it named."""
    teams = [team.team_id for team in stack.teams]
    rows = await stack.sql(
        """select c.id, j.job_type, c.state, a.attempts
             from calls c join jobs j on j.id = c.job_id
             cross join lateral (select count(*) as attempts from attempts a where a.call_id = c.id) a
            where c.team_id = any(%s)""",
        teams,
    )
    assert {str(row.id) for row in rows} == told
    assert {row.job_type for row in rows} == {"gateway", "test", "batch"}
    assert all(row.attempts for row in rows if row.state == "completed")
