"""Many jobs at once, good and bad: the ledger, the account and the costs tell one story."""

import asyncio

from tests.invariants import verify, verify_money
from tests.stack import Stack


async def test_forty_jobs_of_every_kind_leave_the_books_in_order(stack: Stack):
    team = await stack.team(credits_allocated=30, cost_markup_percentage=25)
    await stack.provider.script({"fault": "status", "status": 400}, match="bad", repeat=True)
    await stack.provider.script({"fault": "status", "status": 500}, match="shaky")
    texts = ["good one", "bad one", "shaky one", "good two"]

    async def one(n: int) -> int:
        made = {"team_id": team.team_id, "job_type": "test", "calls": [team.call(f"{texts[n % 4]} {n}")]}
        answer = await team.client.post("/api/jobs/create", json=made)
        if answer.status_code == 202:
            await team.ended(answer.json()["job_id"])
        return answer.status_code

    statuses = await asyncio.gather(*(one(n) for n in range(40)))
    await verify_money(stack)
    await verify(stack)
    assert set(statuses) <= {202, 403}
    rows = await stack.sql("select status from jobs where team_id = %s", team.team_id)
    completed = sum(row.status == "completed" for row in rows)
    assert await team.charges() == [1] * completed
    balance = await team.balance()
    assert (balance["credits_remaining"], balance["credits_held"]) == (30 - completed, 0)


async def test_one_credit_buys_one_of_two_jobs(stack: Stack):
    team = await stack.team(credits_allocated=1)
    jobs = [(await team.job())["job_id"] for _ in range(2)]
    answers = await asyncio.gather(*(team.ask(job_id, "hello") for job_id in jobs))
    assert sorted(a.status_code for a in answers) == [200, 403]
    await verify(stack)
