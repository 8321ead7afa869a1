"""Fairness: a team's big job delays another team's single call by a bound, and batches have units of their own."""

import os
from pathlib import Path

from tests.batches import ended, line, submit
from tests.stack import FreshStacks, Stack
from tests.team import Team
from tests.waiting import until
from workers.dispatcher import CALLS_WINDOW
from workers.main import NICE

IN_FLIGHT = 8
CALLS = 2 * CALLS_WINDOW


async def test_a_single_call_does_not_wait_for_all_of_another_teams_big_job_nor_for_lines(
    fresh_stack: FreshStacks,
) -> None:
    stack = await fresh_stack(WORKERS="1", BATCH_WORKERS="1", CALLS_IN_FLIGHT=str(IN_FLIGHT))
    big, small = await stack.team(), await stack.team()
    await stack.provider.hold(big.model)
    await big.job(*(f"line {n}" for n in range(CALLS)))
    await until(lambda: no_more_are_rung(stack, big), "all that may be rung are rung")

    single = await small.submit("What is the capital of France?")
    await stack.provider.release()
    result = await small.result(single)

    assert result["response"]["content"] == "Paris"
    (row,) = await stack.sql(
        "select count(*) from calls where team_id = %s and started_at < (select started_at from calls where id = %s)",
        big.team_id,
        single.call_id,
    )
    # Those that were rung before it, and a few that workers took meanwhile; never the rest of the job.
    assert row[0] <= CALLS_WINDOW + 4 * IN_FLIGHT < CALLS

    batch = await submit(small, [line(small, name, "Hello?") for name in ("a", "b")])
    assert (await ended(small, batch["id"]))["status"] == "completed"
    assert await niceness_of_units(stack, batch["job_id"]) == {NICE}
    assert await niceness_of_units(stack, single.job_id) == {0}


async def niceness_of_units(stack: Stack, job_id: str) -> set[int]:
    """Of the units that ran the calls of a job, and of their sessions where Linux shares itself out by these."""
    rows = await stack.sql("select distinct worker from calls where job_id = %s", job_id)
    pids = [int(row.worker.rsplit(":", 1)[1]) for row in rows]
    sessions = [Path(f"/proc/{pid}/autogroup") for pid in pids]
    found = {int(path.read_text().split()[-1]) for path in sessions if path.exists()}
    return found | {os.getpriority(os.PRIO_PROCESS, pid) for pid in pids}


async def no_more_are_rung(stack: Stack, team: Team) -> bool:
    (row,) = await stack.sql(
        """select count(*) filter (where state = 'in_progress') as running,
                  count(*) filter (where state = 'pending' and rung_at is not null) as rung
             from calls where team_id = %s""",
        team.team_id,
    )
    return bool(row.running >= IN_FLIGHT and row.rung >= CALLS_WINDOW)
