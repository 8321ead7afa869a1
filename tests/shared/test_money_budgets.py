"""Budgets in dollars and parallel requests of keys: exact however many ask at once."""

import asyncio
from collections import Counter
from uuid import UUID

import pytest

from shared import budgets, intake
from shared.errors import BudgetExceeded, InsufficientCredits, TooManyRequests
from shared.intake import Accepted, Submission
from tests.money import answered, budget, claim, close, in_order, paying, refusal, submission, used
from tests.scene import Scene, Team


async def from_many_connections(scene: Scene, wanted: list[Submission]) -> Counter[str]:
    """Each in a transaction of its own, eight at a time, as from several processes."""
    gate = asyncio.Semaphore(8)

    async def one(submitted: Submission) -> str:
        async with gate:
            return type((await intake.accept(scene.rt, [submitted]))[0]).__name__

    return Counter(await asyncio.gather(*(one(submitted) for submitted in wanted)))


async def budget_of(scene: Scene, team: Team) -> budgets.Budget:
    async with scene.rt.db.statement() as tx:
        found = await budgets.of_team(tx, team.id)
    assert found is not None
    return found


async def test_thirty_calls_against_a_budget_for_ten_are_ten(scene: Scene):
    team = await paying(scene)
    await budget(scene, team, max_nanousd=10_000)
    id_ = (await budget_of(scene, team)).id
    wanted = [submission(team, estimate_nanousd=1000, budget_ids=[id_]) for _ in range(30)]

    assert await from_many_connections(scene, wanted) == Counter({"Accepted": 10, "BudgetExceeded": 20})
    found = await budget_of(scene, team)
    assert (found.held_nanousd, found.spent_nanousd) == (10_000, 0)
    assert await team.credits() == (1000, 10, 990)
    await in_order(scene, team)


async def test_in_one_group_too_and_who_is_refused_credits_holds_no_budget(scene: Scene):
    team = await paying(scene, credits=2)
    await budget(scene, team, max_nanousd=3000)
    id_ = (await budget_of(scene, team)).id
    three = submission(team, count=3, estimate_nanousd=1001, budget_ids=[id_])
    group = [three, *(submission(team, estimate_nanousd=1000, budget_ids=[id_]) for _ in range(4))]

    results = await intake.accept(scene.rt, group)

    assert [type(r) for r in results] == [BudgetExceeded, Accepted, Accepted, InsufficientCredits, InsufficientCredits]
    assert (await budget_of(scene, team)).held_nanousd == 2000
    await in_order(scene, team)


@pytest.mark.parametrize(("of_key", "owner"), [(True, "API key"), (False, "team")])
async def test_a_budget_is_held_and_spent_by_calls_and_says_whose_it_is(scene: Scene, of_key: bool, owner: str):
    team = await paying(scene)
    await budget(scene, team, max_nanousd=200_000_000, of_key=of_key)
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id, max_tokens=1000)
    row = await scene.row("select b.* from budgets b join calls c on b.id = any(c.budget_ids) where c.id = :id",
                          id=UUID(call_id))  # fmt: skip
    assert (row.held_nanousd, row.spent_nanousd) == (136_000_000, 0)
    assert refusal(await team.submit(job_id, max_tokens=1000)) == (403, f"Budget exceeded for this {owner}")

    await close(scene, used(scene, await claim(scene, call_id), 250))

    row = await scene.row("select * from budgets where id = :id", id=row.id)
    assert (row.held_nanousd, row.spent_nanousd) == (0, 34_000_000)
    assert (await team.submit(job_id, max_tokens=1000)).status_code == 202
    await team.post(f"/jobs/{job_id}/cancel")
    row = await scene.row("select * from budgets where id = :id", id=row.id)
    assert (row.held_nanousd, row.spent_nanousd) == (0, 34_000_000)
    await in_order(scene, team)


async def test_a_budget_begins_again_with_each_window_and_what_runs_goes_on_in_the_next(scene: Scene):
    team = await paying(scene)
    await budget(scene, team, max_nanousd=200_000_000, duration="1h")
    began = (await budget_of(scene, team)).window_started_at
    job_id = (await team.job())["job_id"]
    await answered(scene, team, job_id, 250, max_tokens=1000)
    running = await claim(scene, await team.call(job_id, max_tokens=1000))
    assert (await team.submit(job_id, max_tokens=1000)).status_code == 403

    async with scene.later(2 * 3600 + 60) as later:
        async with later.db.transaction() as tx:
            found = await budgets.of_team(tx, team.id)
            assert found is not None
            assert (found.held_nanousd, found.spent_nanousd) == (136_000_000, 0)
            [accepted] = await intake.accept(
                later, [submission(team, estimate_nanousd=64_000_000, budget_ids=[found.id])]
            )
        assert isinstance(accepted, Accepted)
    await close(scene, used(scene, running, 500))

    row = await scene.row("select * from budgets where team_id = :id", id=team.id)
    assert (row.held_nanousd, row.spent_nanousd) == (64_000_000, 68_000_000)
    assert (row.resets_at - row.window_started_at).total_seconds() == 3600
    assert row.anchored_at == began
    await in_order(scene, team)


async def test_a_budget_is_changed_and_removed_without_losing_what_is_spent_and_held(scene: Scene):
    team = await paying(scene)
    await budget(scene, team, max_nanousd=10**9)
    job_id = (await team.job())["job_id"]
    await answered(scene, team, job_id, 250)
    await team.call(job_id, max_tokens=1000)
    await budget(scene, team, max_nanousd=2 * 10**9, soft_nanousd=5, duration="30d")

    found = await budget_of(scene, team)
    assert (found.max_nanousd, found.soft_nanousd, found.duration) == (2 * 10**9, 5, "30d")
    assert found.anchored_at == found.window_started_at, "another duration begins windows of its own"
    assert (found.spent_nanousd, found.held_nanousd) == (34_000_000, 136_000_000)

    async with scene.rt.db.transaction() as tx:
        await budgets.set_budget(tx, team_id=team.id, max_nanousd=None)
        assert await budgets.of_team(tx, team.id) is None
    await team.post(f"/jobs/{job_id}/cancel")
    await in_order(scene, team)


@pytest.mark.parametrize("duration", [None, "7d", "1h"])
async def test_what_was_spent_in_a_window_that_is_over_does_not_come_back_with_another_duration(
    scene: Scene, duration: str | None
):
    team = await paying(scene)
    await budget(scene, team, max_nanousd=34_000_000, duration="1h")
    await answered(scene, team, (await team.job())["job_id"], 250, max_tokens=250)
    id_ = (await budget_of(scene, team)).id
    async with scene.later(2 * 3600) as later, later.db.transaction() as tx:
        await budgets.set_budget(tx, team_id=team.id, max_nanousd=34_000_000, duration=duration)
        found = (await budgets.lock(tx, [id_]))[id_]

    assert (found.spent_nanousd, found.duration, found.takes(34_000_000)) == (0, duration, True)


async def test_a_keys_parallel_requests_are_counted_exactly_from_many_connections(scene: Scene):
    team = await paying(scene)
    key = await scene.row(
        "update virtual_keys set max_parallel_requests = 5 where team_id = :id returning id", id=team.id
    )
    wanted = [submission(team, limited_key=key.id, key_id=key.id) for _ in range(20)]

    assert await from_many_connections(scene, wanted) == Counter({"Accepted": 5, "TooManyRequests": 15})
    assert await team.credits() == (1000, 5, 995)
    too_many = [submission(team, limited_key=key.id, key_id=key.id, count=2)]
    [again] = await intake.accept(scene.rt, too_many)
    assert isinstance(again, TooManyRequests)


async def test_a_key_over_its_parallel_requests_is_told_to_come_again(scene: Scene):
    team = await paying(scene)
    await scene.rows("update virtual_keys set max_parallel_requests = 1 where team_id = :id returning 1", id=team.id)
    job_id = (await team.job())["job_id"]
    first = await team.call(job_id)
    second = await team.submit(job_id)
    assert refusal(second) == (429, "Rate limit exceeded")
    assert second.headers["retry-after"] == "1"

    await scene.work_on(first)
    assert (await team.submit(job_id)).status_code == 202
    await in_order(scene, team)
