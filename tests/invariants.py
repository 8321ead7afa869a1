"""What must be true of the rows after any run, whatever was killed: each check asks for the rows that break it."""

from uuid import UUID

from shared.books import CHECKS
from tests import all_books
from tests.stack import Stack
from tests.waiting import until

FINAL = "('completed', 'failed', 'cancelled')"

# These come true by themselves once the stack is left alone: the sweep closes what a dead worker left open.
COME_TRUE = {
    "every call is final": f"select id, state from calls where team_id = any(%s) and state not in {FINAL}",
    "a job that ends with its calls is final": f"""
        select id, status from jobs where team_id = any(%s) and auto_complete and status not in {FINAL}""",
    "no attempt of a final call is still open": f"""
        select c.id, a.number from calls c join attempts a on a.call_id = c.id
         where c.team_id = any(%s) and c.state in {FINAL} and a.outcome = 'in_progress'""",
}

DELIVERED = {
    "every delivery is delivered": """
        select id, state, last_status, last_error from deliveries where team_id = any(%s) and state <> 'delivered'""",
}

ALWAYS = {
    "a call has a result exactly when it completed": """
        select c.id, c.state from calls c left join call_payloads p on p.call_id = c.id
         where c.team_id = any(%s) and (c.state = 'completed') <> (p.response is not null)""",
    "an unfinished job-based job with calls holds its credit": f"""
        select j.id from jobs j left join holds h on h.job_id = j.id
         where j.team_id = any(%s) and j.budget_mode = 'job_based' and j.calls_total > 0 and j.status not in {FINAL}
           and h.job_id is null""",
}
MONEY = all_books.broken("money")


async def verify(stack: Stack, *, delivered: bool = False, timeout_s: float = 20) -> None:
    """Check everything about the teams of this test; delivered: also that every webhook arrived."""
    teams = [team.team_id for team in stack.teams]
    for what, query in {**COME_TRUE, **(DELIVERED if delivered else {})}.items():
        await _comes_true(stack, what, query, teams, timeout_s)
    for what, query in ALWAYS.items():
        await holds(stack, what, query, teams)
    await books_hold(stack, all_books.EVERYTHING, teams)
    await _provider_agrees(stack, teams)


async def verify_money(stack: Stack) -> None:
    """What must be true of money at every moment, also while calls run."""
    await books_hold(stack, MONEY, [team.team_id for team in stack.teams])


async def books_hold(stack: Stack, broken: str, teams: list[str]) -> None:
    """None of these checks of the books finds a row. broken: the statement that names those that do."""
    found = await stack.sql(broken, teams=teams)
    shown = {row.check: (await stack.sql(CHECKS[row.area][row.check], teams=teams))[:5] for row in found}
    assert not found, f"rows break the books: {shown}"


async def holds(stack: Stack, what: str, query: str, teams: list[str]) -> None:
    """No row breaks this."""
    broken = await stack.sql(query, teams)
    assert not broken, f"{what}; {len(broken)} rows break it: {broken[:5]}"


async def _comes_true(stack: Stack, what: str, query: str, teams: list[str], timeout_s: float) -> None:
    async def nobody_breaks_it() -> bool:
        return not await stack.sql(query, teams)

    try:
        await until(nobody_breaks_it, what, timeout_s)
    except AssertionError:
        await holds(stack, what, query, teams)


async def _provider_agrees(stack: Stack, teams: list[str]) -> None:
    """Every request that reached the provider has its attempt, no attempt asked twice, no success was made up."""
    rows = await stack.sql(
        """select a.call_id, a.number, a.outcome from attempts a join calls c on c.id = a.call_id
            where c.team_id = any(%s)""",
        teams,
    )
    outcomes = {f"{row.call_id}.{row.number}": row.outcome for row in rows}
    ours = {str(row.call_id) for row in rows}
    asked = [id_ for id_ in stack.provider.executions() if id_.partition(".")[0] in ours]
    assert len(asked) == len(set(asked)), "one attempt asked the provider twice"
    assert set(asked) <= set(outcomes), f"asked without an attempt: {sorted(set(asked) - set(outcomes))[:5]}"
    made_up = {id_ for id_, outcome in outcomes.items() if outcome == "succeeded"} - set(asked)
    assert not made_up, f"succeeded without asking: {sorted(made_up)[:5]}"
    await _every_request_is_known(stack)


async def _every_request_is_known(stack: Stack) -> None:
    ids = {id_.partition(".")[0] for id_ in stack.provider.executions()}
    known = {
        str(row.id) for row in await stack.sql("select id from calls where id = any(%s)", [UUID(id_) for id_ in ids])
    }
    assert ids <= known, f"the provider was asked for calls that nobody accepted: {sorted(ids - known)[:5]}"
