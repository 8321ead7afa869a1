"""Utilization over all teams and the trends of one."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tests.api.admin import Api, made, refusal, wrong_place
from tests.scene import HELLO, Scene, Team

USAGE = """
insert into usage_daily
  (team_id, day, job_type, model, jobs_completed, jobs_failed, credits_charged, client_cost_nanousd)
values (:team, :day, :type, :model, 2, 1, :credits, :cost) returning 1
"""


@pytest.fixture
def settings(request: pytest.FixtureRequest, settings):
    """Utilization counts every team there is: those tests get a database of their own."""
    if "utilization" not in request.node.name:
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("fresh_database_url")})


async def used_team(scene: Scene, allocated: int, used: int) -> str:
    name: str = (await scene.api.team(credits_allocated=allocated))["team_id"]
    await scene.rows("update credit_accounts set used = :used where team_id = :id returning 1", used=used, id=name)
    return name


async def usage(scene: Scene, team: str, days_ago: int, **fields: Any) -> date:
    day = datetime.now(UTC).date() - timedelta(days=days_ago)
    await scene.rows(USAGE, **{"team": team, "day": day, "type": "t", "model": "", "credits": 0, "cost": 0, **fields})
    return day


async def trends(scene: Scene, team: str, days: int) -> dict[str, Any]:
    return made(await scene.api.get(f"/credits/trends?team_id={team}&days={days}"))


async def test_utilization_of_nobody(api: Api):
    found = made(await api.get("/credits/utilization"))
    assert found["total_teams"] == 0
    assert found["summary"] == {"total_allocated": 0, "total_remaining": 0, "total_used": 0, "avg_utilization": 0.0}
    assert found["teams_needing_attention"] == []


async def test_utilization_sorts_teams_by_what_is_left(scene: Scene):
    names = [await used_team(scene, 100, used) for used in (0, 49, 50, 80, 81)]
    empty, gone = await used_team(scene, 0, 0), await used_team(scene, 100, 100)
    await scene.rows("update teams set status = 'deleted' where id = :id returning id", id=gone)

    found = made(await scene.api.get("/credits/utilization"))
    assert found == {
        "total_teams": 6,
        "summary": {"total_allocated": 500, "total_remaining": 240, "total_used": 260, "avg_utilization": 52.0},
        "by_status": {"healthy": 2, "warning": 2, "critical": 2},
        "teams_needing_attention": [
            {"team_id": empty, "credits_remaining": 0, "percentage": 0.0, "status": "critical"},
            {"team_id": names[4], "credits_remaining": 19, "percentage": 19.0, "status": "critical"},
            {"team_id": names[3], "credits_remaining": 20, "percentage": 20.0, "status": "warning"},
            {"team_id": names[2], "credits_remaining": 50, "percentage": 50.0, "status": "warning"},
        ],
    }


async def test_utilization_is_for_admins(api: Api):
    team = await api.team()
    assert refusal(await api.get("/credits/utilization", key=team["virtual_key"])) == (403, "Admin access required")


async def test_trends_add_up_each_day(scene: Scene):
    name = (await scene.api.team(credits_allocated=100))["team_id"]
    today = await usage(scene, name, 0, credits=3, cost=250_000_000)
    await usage(scene, name, 0, credits=4, type="other", model="gpt-4")
    before = await usage(scene, name, 2, credits=8)
    await usage(scene, name, 4, credits=50)

    found = await trends(scene, name, 4)
    assert [day["date"] for day in found["daily"]] == [str(today - timedelta(days=n)) for n in (3, 2, 1, 0)]
    assert [day["credits_used"] for day in found["daily"]] == [0, 8, 0, 7]
    assert found["daily"][1]["date"] == str(before)
    assert found["daily"][3] == {"date": str(today), "credits_used": 7, "jobs": 6, "cost_usd": 0.25}
    assert (found["team_id"], found["days"], found["avg_daily_credits"]) == (name, 4, 3.75)
    assert found["projected_exhaustion_date"] == str(today + timedelta(days=27))  # 100 / 3.75 = 26.7


async def test_trends_show_a_job_that_ended(scene: Scene):
    team: Team = await scene.team(credits=10)
    body = {"team_id": team.id, "job_type": "test", "calls": [{"messages": HELLO}]}
    ended = made(await team.post("/jobs/create", body, Prefer="wait=10"))

    found = made(await team.get("/credits/trends?days=1"))
    cost = ended["costs"]["total_cost_usd"]
    [today] = found["daily"]
    assert (today["credits_used"], today["jobs"], today["cost_usd"]) == (1, 1, cost)
    assert cost > 0


async def test_credits_that_are_not_used_or_hardly_do_not_end(scene: Scene):
    idle = (await scene.api.team(credits_allocated=10))["team_id"]
    assert (await trends(scene, idle, 30))["projected_exhaustion_date"] is None
    rich = (await scene.api.team(credits_allocated=10**15))["team_id"]
    await usage(scene, rich, 1, credits=1)
    assert (await trends(scene, rich, 365))["projected_exhaustion_date"] is None
    poor = (await scene.api.team())["team_id"]
    today = await usage(scene, poor, 0, credits=1)
    assert (await trends(scene, poor, 30))["projected_exhaustion_date"] == str(today)


async def test_wrong_trend_queries_are_refused(api: Api):
    team, other = await api.team(), await api.team()
    assert wrong_place(await api.get("/credits/trends")) == ["query", "team_id"]
    for days in ("0", "366", "x"):
        answer = await api.get(f"/credits/trends?team_id={team['team_id']}&days={days}")
        assert wrong_place(answer) == ["query", "days"]
    closed = await api.get(f"/credits/trends?team_id={other['team_id']}", key=team["virtual_key"])
    assert refusal(closed) == (403, "Cannot access credit trends for a different team")
    nobody = await api.get("/credits/trends?team_id=nobody")
    assert refusal(nobody) == (404, "No credit account found for team 'nobody'")
    own = made(await api.get("/credits/trends", key=team["virtual_key"]))
    assert (own["team_id"], own["days"], len(own["daily"])) == (team["team_id"], 30, 30)
