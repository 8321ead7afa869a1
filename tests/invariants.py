"""What must be true of the rows after any run, whatever was killed: each check asks for the rows that break it."""

from uuid import UUID

from tests.stack import Stack
from tests.waiting import until

FINAL = "('completed', 'failed', 'cancelled')"
CALL_ENDS = "('call.completed', 'call.failed', 'call.cancelled')"
JOB_ENDS = "('job.completed', 'job.failed', 'job.cancelled')"

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
    "a call ends exactly once": f"""
        select c.id, c.state, count(e.id) from calls c
          left join events e on e.subject_id = c.id and e.type in {CALL_ENDS}
         where c.team_id = any(%s) group by c.id
        having count(e.id) <> (case when c.state in {FINAL} then 1 else 0 end)""",
    "a job ends exactly once": f"""
        select j.id, j.status, count(e.id) from jobs j left join events e on e.job_id = j.id and e.type in {JOB_ENDS}
         where j.team_id = any(%s) group by j.id
        having count(e.id) <> (case when j.status in {FINAL} then 1 else 0 end)""",
    "a call has a result exactly when it completed": """
        select c.id, c.state from calls c left join call_payloads p on p.call_id = c.id
         where c.team_id = any(%s) and (c.state = 'completed') <> (p.response is not null)""",
    "provider cost: attempts sum to the call": """
        select c.id, c.provider_cost_nanousd, sum(a.provider_cost_nanousd) from calls c
          left join attempts a on a.call_id = c.id where c.team_id = any(%s) group by c.id
        having c.provider_cost_nanousd <> coalesce(sum(a.provider_cost_nanousd), 0)""",
    "client cost: the call has that of its result's attempt, else none": """
        select c.id, c.state, c.client_cost_nanousd, a.client_cost_nanousd as of_attempt from calls c
          left join attempts a on a.call_id = c.id and a.number = c.attempt and a.outcome = 'succeeded'
           and c.state = 'completed'
         where c.team_id = any(%s)
           and (c.client_cost_nanousd <> coalesce(a.client_cost_nanousd, 0)
                or (c.state = 'completed' and a.call_id is null))""",
    "costs, tokens and counts: calls sum to the job": """
        select j.id from jobs j left join calls c on c.job_id = j.id where j.team_id = any(%s) group by j.id
        having (j.provider_cost_nanousd, j.client_cost_nanousd, j.total_tokens) is distinct from
               (coalesce(sum(c.provider_cost_nanousd), 0), coalesce(sum(c.client_cost_nanousd), 0),
                coalesce(sum(c.total_tokens), 0))
            or (j.calls_total, j.calls_completed, j.calls_failed, j.calls_cancelled) is distinct from
               (count(c.id), count(*) filter (where c.state = 'completed'),
                count(*) filter (where c.state = 'failed'), count(*) filter (where c.state = 'cancelled'))""",
    "attempts are numbered without gaps": """
        select c.id, c.attempt, count(a.number) from calls c left join attempts a on a.call_id = c.id
         where c.team_id = any(%s) group by c.id
        having count(a.number) <> c.attempt or max(a.number) <> c.attempt or min(a.number) <> 1""",
    "an attempt of unknown end may have been billed": """
        select a.call_id, a.number from attempts a join calls c on c.id = a.call_id
         where c.team_id = any(%s) and (a.outcome in ('unknown', 'abandoned')) <> a.maybe_billed""",
    "an account is the sum of its entries": """
        select a.team_id, a.allocated - a.used, sum(e.amount) from credit_accounts a
          left join credit_entries e using (team_id) where a.team_id = any(%s) group by a.team_id
        having a.allocated - a.used <> coalesce(sum(e.amount), 0)""",
    "each entry begins where another ended, the first at 0": """
        with e as (select team_id, "before", after from credit_entries where team_id = any(%s))
        select team_id, "before" from (select team_id, "before" from e except all select team_id, after from e) open
         where "before" <> 0""",
    "what is held is the sum of holds": """
        select a.team_id, a.held, sum(h.credits) from credit_accounts a left join holds h using (team_id)
         where a.team_id = any(%s) group by a.team_id having a.held <> coalesce(sum(h.credits), 0)""",
    "no final job holds credits": f"""
        select h.job_id from holds h join jobs j on j.id = h.job_id
         where j.team_id = any(%s) and j.status in {FINAL}""",
    "an unfinished job with calls holds its credit": f"""
        select j.id from jobs j left join holds h on h.job_id = j.id
         where j.team_id = any(%s) and j.calls_total > 0 and j.status not in {FINAL} and h.job_id is null
           and j.budget_mode = 'job_based'""",
    "a job-based job is charged once when it completed with a call and none failed, else not": """
        select j.id, j.status, j.credits_charged, e.amount from jobs j
          left join credit_entries e on e.job_id = j.id and e.kind = 'deduction'
         where j.team_id = any(%s) and j.budget_mode = 'job_based' and not j.charge_failed_calls
           and (-coalesce(e.amount, 0) <> j.credits_charged or j.credits_charged <>
                case when j.status = 'completed' and j.calls_completed > 0 and j.calls_failed = 0 then 1 else 0 end)""",
    "events of a job are numbered without gaps": """
        select j.id, j.event_sequence, count(e.id) from jobs j left join events e on e.job_id = j.id
         where j.team_id = any(%s) group by j.id
        having count(e.id) <> j.event_sequence or max(e.sequence) <> j.event_sequence or min(e.sequence) <> 1""",
    "an event has a delivery for each endpoint that wants it": """
        select e.id, e.type, w.id as endpoint_id from events e join webhook_endpoints w using (team_id)
         where e.team_id = any(%s) and e.type = any(w.events) and w.status = 'active' and w.created_at < e.created_at
           and not exists (select 1 from deliveries d where d.event_id = e.id and d.endpoint_id = w.id)""",
}


async def verify(stack: Stack, *, delivered: bool = False, timeout_s: float = 20) -> None:
    """Check everything about the teams of this test; delivered: also that every webhook arrived."""
    teams = [team.team_id for team in stack.teams]
    for what, query in {**COME_TRUE, **(DELIVERED if delivered else {})}.items():
        await _comes_true(stack, what, query, teams, timeout_s)
    for what, query in ALWAYS.items():
        await holds(stack, what, query, teams)
    await _provider_agrees(stack, teams)


async def verify_money(stack: Stack) -> None:
    """What must be true of money at every moment, also while calls run."""
    teams = [team.team_id for team in stack.teams]
    for what in (
        "an account is the sum of its entries",
        "what is held is the sum of holds",
        "no final job holds credits",
    ):
        await holds(stack, what, ALWAYS[what], teams)


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
