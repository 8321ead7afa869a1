"""Money is exact between processes: two of them spend the same credits, and the same dollars, at the same time."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from tests.money import budget, in_order, paying
from tests.scene import Scene, Team

ROOT = Path(__file__).parents[2]
RIVALS = 2


async def race(scene: Scene, team: Team, *, jobs: int, **more: Any) -> Counter[str]:
    """So many jobs in each of two processes, begun together; how they fared in all."""
    url = scene.rt.settings.database_url
    given = {"database_url": url, "team": team.id, "model": team.models[0], "jobs": jobs, "estimate_nanousd": 0,
             "budget_ids": [], **more}  # fmt: skip
    rivals = [await started(given) for _ in range(RIVALS)]
    said = await asyncio.gather(*(rival.communicate(b"go\n") for rival in rivals))
    fared: Counter[str] = Counter()
    for out, _ in said:
        fared.update(orjson.loads(out))
    return fared


async def started(given: dict[str, Any]) -> Process:
    rival = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.money_rival", stdin=PIPE, stdout=PIPE, cwd=ROOT
    )
    assert rival.stdin is not None
    assert rival.stdout is not None
    rival.stdin.write(orjson.dumps(given) + b"\n")
    async with asyncio.timeout(60):
        assert await rival.stdout.readline() == b"ready\n"
    return rival


async def test_sixty_jobs_in_two_processes_on_forty_credits_charge_forty_and_refuse_twenty(scene: Scene):
    team = await paying(scene, credits=40)

    fared = await race(scene, team, jobs=30)

    assert fared == {"Accepted": 40, "InsufficientCredits": 20}
    assert await team.deductions() == [-1] * 40
    assert await team.credits() == (0, 0, 0)
    entries = await scene.rows("select after from credit_entries where team_id = :id order by seq", id=team.id)
    assert [entry.after for entry in entries] == list(range(40, -1, -1))
    await in_order(scene, team)


async def test_forty_calls_in_two_processes_against_a_budget_for_ten_are_ten(scene: Scene):
    team = await paying(scene)
    await budget(scene, team, max_nanousd=10_999)
    row = await scene.row("select id from budgets where team_id = :id", id=team.id)

    fared = await race(scene, team, jobs=20, estimate_nanousd=1000, budget_ids=[str(row.id)])

    assert fared == {"Accepted": 10, "BudgetExceeded": 30}
    found = await scene.row("select * from budgets where id = :id", id=row.id)
    assert (found.held_nanousd, found.spent_nanousd) == (10_000, 0)
    await in_order(scene, team)
