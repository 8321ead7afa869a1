"""Credits: held at a job's first call, charged once when it completed well, given back otherwise."""

import asyncio
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import httpx
import pytest

from tests.invariants import verify, verify_money
from tests.stack import Stack
from tests.team import Team, accepted

NO_CREDITS = (httpx.codes.FORBIDDEN, {"detail": "Insufficient credits"})
BAD_REQUEST = {"fault": "status", "status": 400}


async def test_1_a_job_of_three_calls_holds_one_credit_and_is_charged_one(stack: Stack) -> None:
    team = await stack.team()
    job = await answered(team, "one", "two", "three")

    during = credits_of(await team.balance())
    completed = accepted(await team.complete(job))

    assert during == {"allocated": 1000, "used": 0, "remaining": 1000, "held": 1, "available": 999}
    assert credits_of(await team.balance()) == {
        "allocated": 1000,
        "used": 1,
        "remaining": 999,
        "held": 0,
        "available": 999,
    }
    assert (completed["costs"]["credit_applied"], completed["costs"]["credits_charged"]) == (True, 1)
    assert (completed["credits_remaining"], completed["total_calls"]) == (999, 3)
    await verify(stack)


async def test_2_complete_sent_five_times_at_once_is_one_entry_and_five_equal_answers(stack: Stack) -> None:
    team = await stack.team()
    job = await answered(team, "one")

    answers = await asyncio.gather(*(team.complete(job) for _ in range(5)))

    assert {answer.status_code for answer in answers} == {httpx.codes.OK}
    assert len({answer.text for answer in answers}) == 1
    (entry,) = await deductions(team)
    assert (entry["credits_amount"], entry["credits_before"], entry["credits_after"]) == (-1, 1000, 999)
    assert entry["job_id"] == job


async def test_3_a_job_its_client_fails_gives_its_hold_back(stack: Stack) -> None:
    team = await stack.team()
    job = await answered(team, "one", "two", "three")

    failed = accepted(await team.complete(job, "failed", error_message="not usable"))

    assert (failed["status"], failed["credits_remaining"]) == ("failed", 1000)
    assert (failed["costs"]["credit_applied"], await deductions(team)) == (False, [])
    assert credits_of(await team.balance())["available"] == 1000
    assert (await team.ended(job))["failure_reason"] == "client"
    await verify(stack)


async def test_4_a_job_with_a_call_that_failed_for_good_is_charged_only_where_the_team_pays_for_that(
    stack: Stack,
) -> None:
    for charge_failed_calls, charged in ((False, 0), (True, 1)):
        team = await stack.team(charge_failed_calls=charge_failed_calls)
        job = await answered(team, "one", "two")
        await stack.provider.script(BAD_REQUEST, match=team.model)
        assert (await team.ask(job, "three")).status_code == httpx.codes.BAD_REQUEST

        completed = accepted(await team.complete(job))

        assert completed["costs"]["credits_charged"] == charged
        assert credits_of(await team.balance())["remaining"] == 1000 - charged
    await verify(stack)


async def test_5_a_job_without_calls_costs_nothing(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]

    completed = accepted(await team.complete(job))

    assert (completed["costs"]["credit_applied"], completed["credits_remaining"]) == (False, 1000)
    assert await deductions(team) == []


async def test_6_without_credits_a_job_is_created_but_its_first_call_is_refused(stack: Stack) -> None:
    team = await stack.team(credits_allocated=0)
    job = (await team.job())["job_id"]

    refused = await team.ask(job, "Hello")

    assert (refused.status_code, refused.json()) == NO_CREDITS
    found = accepted(await team.client.get(f"/api/jobs/{job}"))
    assert (found["status"], found["counts"]["total"]) == ("pending", 0)
    assert await stack.provider.count(team.model) == 0
    await verify(stack)


async def test_7_of_two_jobs_that_want_the_last_credit_one_is_answered(stack: Stack) -> None:
    team = await stack.team(credits_allocated=1)
    jobs = [(await team.job())["job_id"] for _ in range(2)]

    answers = await asyncio.gather(*(team.ask(job, "Hello") for job in jobs))

    assert sorted(answer.status_code for answer in answers) == [httpx.codes.OK, httpx.codes.FORBIDDEN]
    assert await stack.provider.count(team.model) == 1
    await verify_money(stack)


async def test_of_60_jobs_at_once_40_credits_take_40(stack: Stack) -> None:
    team = await stack.team(credits_allocated=40)
    body = {"team_id": team.team_id, "job_type": "test", "calls": [team.call("mine")]}

    answers = await asyncio.gather(*(team.client.post("/api/jobs/create", json=body) for _ in range(60)))

    assert Counter(answer.status_code for answer in answers) == {httpx.codes.ACCEPTED: 40, httpx.codes.FORBIDDEN: 20}
    for answer in answers:
        if answer.status_code == httpx.codes.ACCEPTED:
            assert (await team.ended(answer.json()["job_id"]))["status"] == "completed"
    await verify(stack)
    assert await stack.provider.count(team.model) == 40
    assert credits_of(await team.balance()) == {"allocated": 40, "used": 40, "remaining": 0, "held": 0, "available": 0}


async def test_jobs_of_every_kind_at_once_leave_the_books_in_order(stack: Stack) -> None:
    team = await stack.team(credits_allocated=15, cost_markup_percentage=25)
    await stack.provider.script(BAD_REQUEST, match="bad", repeat=True)
    await stack.provider.script({"fault": "status", "status": 500}, {"fault": "garbage"}, match="shaky")
    body = {"team_id": team.team_id, "job_type": "test"}

    async def ended(text: str) -> str:
        answer = await team.client.post("/api/jobs/create", json={**body, "calls": [team.call(text)]})
        if answer.status_code == httpx.codes.FORBIDDEN:
            return "refused"
        return str((await team.ended(accepted(answer)["job_id"]))["status"])

    # One by itself: of those at once the credits may all go to jobs that fail.
    ends = [await ended("good alone")]
    ends += await asyncio.gather(*(ended(f"{kind} {n}") for n in range(10) for kind in ("good", "bad", "shaky")))

    await verify(stack)
    assert set(ends) <= {"completed", "failed", "refused"}
    assert ends[0] == "completed"
    assert await team.charges() == [1] * ends.count("completed")
    balance = credits_of(await team.balance())
    assert (balance["used"], balance["held"]) == (ends.count("completed"), 0)


async def test_complete_repeated_and_raced_twenty_times_charges_once(stack: Stack) -> None:
    team = await stack.team()
    job = await answered(team, "one")

    raced = await asyncio.gather(*(team.complete(job) for _ in range(20)))
    repeated = [await team.complete(job) for _ in range(20)]
    other = await team.complete(job, "failed")

    assert {(answer.status_code, answer.text) for answer in (*raced, *repeated)} == {(200, raced[0].text)}
    assert (other.status_code, other.json()) == (httpx.codes.CONFLICT, {"detail": "Job is already completed"})
    assert await team.charges() == [1]
    await verify(stack)


async def test_credits_that_are_added_can_be_used_at_once(stack: Stack) -> None:
    team = await stack.team(credits_allocated=0)
    job = (await team.job())["job_id"]
    refused = await team.ask(job, "Hello")

    added = accepted(await stack.admin.post("/api/credits/add", json={"team_id": team.team_id, "amount": 1}))

    assert (refused.status_code, refused.json()) == NO_CREDITS
    assert added["credits_remaining"] == 1
    assert (await team.ask(job, "Hello")).status_code == httpx.codes.OK
    assert accepted(await team.complete(job))["credits_remaining"] == 0
    await verify(stack)


async def test_the_costs_of_a_job_sum_to_the_last_nano_dollar(stack: Stack) -> None:
    prices = {"pricing_input": 0.333333, "pricing_output": 0.777777}
    team = await stack.team(prices=prices, cost_markup_percentage=17.5)
    job = await answered(team, "one", "two words", "three words here")
    completed = accepted(await team.complete(job))

    costs = accepted(await stack.admin.get(f"/api/jobs/{job}/costs"))["costs"]

    for total, line in (("total_cost_usd", "cost_usd"), ("provider_cost_usd", "provider_cost_usd")):
        assert nanousd(costs[total]) == sum(nanousd(call[line]) for call in costs["breakdown"]) > 0
    assert costs["total_cost_usd"] == completed["costs"]["total_cost_usd"] > costs["provider_cost_usd"]
    await verify(stack)


@pytest.mark.parametrize("ending", ["completed", "failed"])
async def test_11_a_consumption_team_is_charged_what_its_calls_cost_rounded_up_once(stack: Stack, ending: str) -> None:
    rate = {"budget_mode": "consumption_usd", "credits_per_dollar": 7777, "cost_markup_percentage": 50}
    team = await stack.team(credits_allocated=100_000, **rate)
    job = await answered(team, "one", "two words", "three words here")

    during = credits_of(await team.balance())
    completed = accepted(await team.complete(job, ending))

    cost = nanousd(completed["costs"]["total_cost_usd"])
    charged = math.ceil(Fraction(cost * 7777, 10**9))
    assert (during["used"], during["held"]) == (0, charged)
    assert completed["costs"]["credits_charged"] == charged > 1
    assert await team.charges() == [charged]
    assert credits_of(await team.balance())["available"] == 100_000 - charged
    await verify(stack)


async def test_12_tokens_become_credits(stack: Stack) -> None:
    team = await stack.team(credits_allocated=100_000, budget_mode="consumption_tokens", tokens_per_credit=3)
    job = await answered(team, "one", "two")

    completed = accepted(await team.complete(job))

    assert completed["costs"]["credits_charged"] == math.ceil(completed["costs"]["total_tokens"] / 3) > 1
    await verify(stack)


async def test_14_a_call_that_may_cost_more_than_is_free_never_reaches_the_provider(stack: Stack) -> None:
    prices = {"pricing_input": 0, "pricing_output": 200}
    team = await stack.team(prices=prices, credits_allocated=5, budget_mode="consumption_usd")
    job = (await team.job())["job_id"]

    refused = await team.ask(job, "Hello", max_tokens=4000)

    assert (refused.status_code, refused.json()) == NO_CREDITS
    assert credits_of(await team.balance())["available"] == 5
    assert await stack.provider.count(team.model) == 0
    assert (await team.ask(job, "Hello", max_tokens=2000)).status_code == httpx.codes.OK
    await verify(stack)


async def answered(team: Team, *texts: str) -> str:
    """An open job with these calls, all of them answered."""
    job = (await team.job())["job_id"]
    for answer in await asyncio.gather(*(team.ask(job, text) for text in texts)):
        assert answer.status_code == httpx.codes.OK, answer.text
    return str(job)


async def deductions(team: Team) -> list[dict[str, Any]]:
    query = {"transaction_type": "deduction"}
    found: list[dict[str, Any]] = accepted(await team.client.get("/api/credits/transactions", params=query))[
        "transactions"
    ]
    return found


def credits_of(balance: dict[str, Any]) -> dict[str, int]:
    names = ("allocated", "used", "remaining", "held", "available")
    return {name: balance[f"credits_{name}"] for name in names}


def nanousd(usd: float) -> int:
    return round(usd * 1_000_000_000)
