"""Fairness: a team's big job delays another team's single call by a bound, not by its own size."""

from tests.stack import FreshStacks, Stack
from tests.team import Team
from tests.waiting import until
from workers.timer import DISPATCH_WINDOW

IN_FLIGHT = 8
CALLS = 2 * DISPATCH_WINDOW


async def test_a_single_call_does_not_wait_for_all_of_another_teams_big_job(fresh_stack: FreshStacks) -> None:
    stack = await fresh_stack(WORKERS="1", CALLS_IN_FLIGHT=str(IN_FLIGHT))
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
    assert row[0] <= DISPATCH_WINDOW + 4 * IN_FLIGHT < CALLS


async def no_more_are_rung(stack: Stack, team: Team) -> bool:
    (row,) = await stack.sql(
        """select count(*) filter (where state = 'in_progress') as running,
                  count(*) filter (where state = 'pending' and rung_at is not null) as rung
             from calls where team_id = %s""",
        team.team_id,
    )
    return bool(row.running >= IN_FLIGHT and row.rung >= DISPATCH_WINDOW)
