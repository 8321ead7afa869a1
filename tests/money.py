"""Teams that pay otherwise, and what must be true of their books."""

from typing import Any
from uuid import UUID

from httpx import Response

from shared import books, budgets, calls, clock, closing, ids
from shared.attempt_reports import Report, Usage
from shared.calls import Claimed
from shared.clock import now
from shared.closing import Aftermath
from shared.db import hot
from shared.intake import Submission
from shared.jobs import Job
from shared.new_calls import NewCall
from tests import all_books
from tests.scene import Scene, Team, answer
from workers import reports

ACCOUNT = ("limit_mode", "credit_limit")
TERMS = ("budget_mode", "credits_per_dollar", "tokens_per_credit", "charge_failed_calls", "alert_at_percentage")

PER_TOKEN = {"pricing_input": 0, "pricing_output": 136}
"""250 tokens of answer cost 0.034 USD, 1000 are estimated at 0.136 USD; the prompt is free."""


async def pays(scene: Scene, team: Team, **columns: Any) -> Team:
    """Change by what a team pays. Its key is not known to the api yet, or knows within a second."""
    for table, key, names in (("teams", "id", TERMS), ("credit_accounts", "team_id", ACCOUNT)):
        given = {name: value for name, value in columns.items() if name in names}
        if given:
            sets = ", ".join(f"{name} = :{name}" for name in given)
            await scene.rows(f"update {table} set {sets} where {key} = :team returning 1", **given, team=team.id)
    return team


async def paying(scene: Scene, *, credits: int = 1000, **columns: Any) -> Team:  # noqa: A002 - the product's word
    """A team that pays so, with one model priced PER_TOKEN."""
    return await pays(scene, await scene.team(credits=credits, alias=PER_TOKEN), **columns)


async def budget(scene: Scene, team: Team, *, max_nanousd: int, of_key: bool = False, **fields: Any) -> None:
    """Give the team, or its one key, a budget."""
    key = (await scene.row("select id from virtual_keys where team_id = :id", id=team.id)).id
    owner = {"key_id": key} if of_key else {"team_id": team.id}
    async with scene.rt.db.transaction() as tx:
        await budgets.set_budget(tx, max_nanousd=max_nanousd, **owner, **fields)


def new_call(team: Team, job_id: UUID, **fields: Any) -> NewCall:
    """A call of this job that the team's models may answer."""
    given = {
        "id": ids.new(), "job_id": job_id, "team_id": team.id, "model": team.models[0], "candidates": list(team.models),
        "request": '{"messages":[]}', "created_at": now(), "deadline_s": 60,
    }  # fmt: skip
    return NewCall(**{**given, **fields})


def submission(team: Team, *, limited_key: UUID | None = None, count: int = 1, **fields: Any) -> Submission:
    """A new job with so many calls."""
    job = Job(id=ids.new(), team_id=team.id, organization_id="org", job_type="test", created_at=now())
    new = [new_call(team, job.id, **fields) for _ in range(count)]
    return Submission(job_id=job.id, team_id=team.id, new_job=job, calls=new, limited_key=limited_key)


def refusal(refused: Response) -> tuple[int, Any]:
    """Status and detail."""
    return refused.status_code, refused.json()["detail"]


async def claim(scene: Scene, call_id: str) -> Claimed:
    async with scene.rt.db.transaction() as tx:
        [claimed] = await calls.claim(tx, [UUID(call_id)], lease_s=30, worker="test")
    return claimed


async def close(scene: Scene, *wanted: Report) -> Aftermath:
    async with scene.rt.db.transaction() as tx:
        return await closing.close_attempts(tx, wanted, now=clock.now())


def used(scene: Scene, call: Claimed, tokens: int) -> Report:
    """The call is answered with so many tokens."""
    usage = Usage(prompt_tokens=0, completion_tokens=tokens, source="provider")
    return reports.succeeded(call, answer(usage=usage), scene.rt.prices, latency_ms=5)


async def answered(scene: Scene, team: Team, job_id: str, tokens: int = 250, **fields: Any) -> str:
    """A call of this job that is answered with so many tokens."""
    call_id = await team.call(job_id, **fields)
    await close(scene, used(scene, await claim(scene, call_id), tokens))
    return call_id


async def held_of(scene: Scene, job_id: str) -> int:
    """What the job holds, which its row of holds says as well."""
    row = await scene.row(
        """select j.credits_held, coalesce(h.credits, 0) as credits from jobs j left join holds h on h.job_id = j.id
            where j.id = :id""",
        id=UUID(job_id),
    )
    assert row.credits_held == row.credits
    held: int = row.credits
    return held


async def told(scene: Scene, team: Team) -> list[float]:
    """The thresholds the team was told of, in order."""
    found = await scene.rows(
        "select body::json -> 'data' -> 'threshold_percent' as at from events where team_id = :id "
        "and type = 'credits.low' order by seq",
        id=team.id,
    )
    return [row.at for row in found]


# What each line of usage must be, from the rows that it sums up: jobs, calls by their last attempt, attempts.
LINES = """
with lines as (
    select j.team_id, (j.created_at at time zone 'UTC')::date as day, j.job_type, '' as model, '' as provider,
           '00000000-0000-0000-0000-000000000000'::uuid as key_id, 'jobs_' || j.status as what, 1::numeric as n
      from jobs j where j.status in ('completed', 'failed', 'cancelled')
    union all
    select j.team_id, (j.created_at at time zone 'UTC')::date, j.job_type, '', '',
           '00000000-0000-0000-0000-000000000000', 'credits_charged', j.credits_charged from jobs j
    union all
    select j.team_id, (j.created_at at time zone 'UTC')::date, j.job_type, c.model, coalesce(a.provider, ''),
           coalesce(c.key_id, '00000000-0000-0000-0000-000000000000'), m.what, m.n
      from calls c join jobs j on j.id = c.job_id
      left join attempts a on a.call_id = c.id and a.number = c.attempt
     cross join lateral (values ('calls_' || c.state, 1), ('prompt_tokens', c.prompt_tokens),
                                ('completion_tokens', c.completion_tokens), ('latency_sum_ms', c.latency_ms),
                                ('client_cost_nanousd', c.client_cost_nanousd)) as m(what, n)
     where c.state in ('completed', 'failed', 'cancelled')
    union all
    select j.team_id, (j.created_at at time zone 'UTC')::date, j.job_type, c.model, coalesce(a.provider, ''),
           coalesce(c.key_id, '00000000-0000-0000-0000-000000000000'), 'provider_cost_nanousd', a.provider_cost_nanousd
      from attempts a join calls c on c.id = a.call_id join jobs j on j.id = c.job_id
), expected as (
    select team_id, day, job_type, model, provider, key_id, what, sum(n) as n from lines
     where team_id = any(:teams) group by 1, 2, 3, 4, 5, 6, 7 having sum(n) <> 0
), rolled as (
    select u.team_id, u.day, u.job_type, u.model, u.provider, u.key_id, m.what, m.n::numeric as n from usage_daily u
     cross join lateral (
           values ('jobs_completed', jobs_completed), ('jobs_failed', jobs_failed), ('jobs_cancelled', jobs_cancelled),
                  ('credits_charged', credits_charged), ('calls_completed', calls_completed),
                  ('calls_failed', calls_failed), ('calls_cancelled', calls_cancelled),
                  ('prompt_tokens', prompt_tokens), ('completion_tokens', completion_tokens),
                  ('latency_sum_ms', latency_sum_ms), ('client_cost_nanousd', client_cost_nanousd),
                  ('provider_cost_nanousd', provider_cost_nanousd)) as m(what, n)
     where u.team_id = any(:teams) and m.n <> 0
)
(select 'missing' as fault, * from expected except all select 'missing', * from rolled)
union all (select 'too much', * from rolled except all select 'too much', * from expected)
"""


async def in_order(scene: Scene, *teams: Team) -> None:
    """No book of these teams contradicts another."""
    asked = [team.id for team in teams]
    async with scene.rt.db.hot_statement() as tx:
        for row in await hot(tx, all_books.EVERYTHING, {"teams": asked}):
            raise AssertionError(await books.broken(tx, row.area, row.check, teams=asked))
    assert await scene.rows(LINES, teams=asked) == []
