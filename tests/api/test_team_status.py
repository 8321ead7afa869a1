"""Suspended, paused and deleted teams: what their keys may do, how soon, and what becomes of their jobs."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api import team_objects
from shared import deletion
from shared.clock import iso
from shared.runtime import Runtime
from tests.api.admin import Api, made, opened, refusal, unique, wrong_place
from tests.scene import HELLO, Scene, Team, agrees
from tests.waiting import until
from workers.sweeper import Sweep

SUSPENDED = (403, "Team access is suspended. Please contact support.")
PAUSED = (429, "Team access temporarily paused")


def ahead(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def refused(team: Team, status: int) -> Any:
    """What a process that knows the key says, once what it remembers (at most a second) is read anew."""

    async def asked() -> Any:
        answer = await team.get("/credits/balance")
        return answer if answer.status_code == status else None

    return await until(asked, f"an answer {status}", timeout_s=5)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_suspended_team_reads_itself_only_until_resumed(api: Api, runtime: Runtime, method: str):
    team = await api.team()
    name, key = team["team_id"], team["virtual_key"]
    suspended = {"team_id": name, "status": "suspended", "message": f"Team '{name}' has been suspended"}
    assert made(await api.send(method, f"/teams/{name}/suspend", {"reason": "unpaid"})) == suspended
    assert made(await api.send(method, f"/teams/{name}/suspend")) == suspended

    async with opened(runtime) as fresh:  # another process: it has not seen this key yet
        assert refusal(await fresh.get(f"/teams/{name}/credits", key=key)) == SUSPENDED
        assert refusal(await fresh.get("/teams/verify", key=key)) == SUSPENDED
        assert made(await fresh.get(f"/teams/{name}", key=key))["status"] == "suspended"

    resumed = {"team_id": name, "status": "active", "message": f"Team '{name}' has been resumed"}
    assert made(await api.send(method, f"/teams/{name}/resume")) == resumed
    async with opened(runtime) as fresh:
        made(await fresh.get(f"/teams/{name}/credits", key=key))


async def test_a_team_is_suspended_during_use_and_its_calls_go_on(scene: Scene):
    team = await scene.team()
    scene.provider.held.clear()
    job = await team.job(calls=[{"messages": HELLO}])
    await scene.provider.until_asked(1)
    made(await scene.api.post(f"/teams/{team.id}/suspend"))
    assert refusal(await refused(team, 403)) == SUSPENDED
    scene.provider.held.set()
    await asyncio.gather(*scene.tasks)
    ended = made(await scene.api.get(f"/jobs/{job['job_id']}"))
    assert (ended["status"], ended["counts"]["completed"]) == ("completed", 1)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_pause_ends_by_itself(scene: Scene, method: str):
    team = await scene.team()
    ends_at = ahead(100)
    paused = made(await scene.api.send(method, f"/teams/{team.id}/pause", {"until": ends_at, "reason": "quota"}))
    assert paused == {"team_id": team.id, "status": "paused", "message": f"Team '{team.id}' has been paused"}
    answer = await refused(team, 429)
    assert refusal(answer) == PAUSED
    assert 90 <= int(answer.headers["retry-after"]) <= 101
    shown = made(await scene.api.get(f"/teams/{team.id}"))
    assert (shown["status"], shown["paused_until"]) == ("paused", iso(datetime.fromisoformat(ends_at)))

    async with scene.later(101) as rt, opened(rt) as later:
        made(await later.get("/credits/balance", key=team.key))
        over = made(await later.get(f"/teams/{team.id}"))
        assert (over["status"], over["paused_until"], over["credits"]["status"]) == ("active", None, "active")


async def test_a_pause_without_end_lasts_until_the_team_is_resumed(scene: Scene):
    team = await scene.team()
    made(await scene.api.post(f"/teams/{team.id}/pause"))
    answer = await refused(team, 429)
    assert answer.headers["retry-after"] == "60"
    made(await scene.api.post(f"/teams/{team.id}/resume"))
    await refused(team, 200)


async def test_a_pause_does_not_end_a_suspension(api: Api):
    name = (await api.team())["team_id"]
    made(await api.post(f"/teams/{name}/suspend"))
    for body in ({"until": ahead(100)}, {}):
        paused = await api.post(f"/teams/{name}/pause", body)
        assert refusal(paused) == (409, f"Team '{name}' is suspended: resume it before it is paused")
    assert made(await api.get(f"/teams/{name}"))["status"] == "suspended"
    made(await api.post(f"/teams/{name}/resume"))
    made(await api.post(f"/teams/{name}/pause", {"until": ahead(100)}))


@pytest.mark.parametrize(
    "ends_at", ["a moment ago", "2020-01-01T00:00:00Z", "tomorrow", 1_900_000_000, "9999-12-31T00:00:00Z"]
)
async def test_a_pause_needs_a_time_to_come(api: Api, ends_at: object):
    name = (await api.team())["team_id"]
    ends_at = ahead(-5) if ends_at == "a moment ago" else ends_at
    assert wrong_place(await api.post(f"/teams/{name}/pause", {"until": ends_at})) == ["body", "until"]
    assert made(await api.get(f"/teams/{name}"))["status"] == "active"


async def test_deletion_revokes_cancels_and_keeps_the_books(scene: Scene):
    scene.live = False
    team = await scene.team(credits=10)
    done = await team.job(calls=[{"messages": HELLO}])
    await scene.work_on(done["calls"][0]["call_id"])
    waiting = await team.job(calls=[{"messages": HELLO}, {"messages": HELLO}])
    empty = await team.job()

    deleted = await scene.api.send("DELETE", f"/teams/{team.id}")
    assert made(deleted) == {"team_id": team.id, "message": f"Team '{team.id}' deleted successfully"}
    for job_id in (waiting["job_id"], empty["job_id"]):
        job = made(await scene.api.get(f"/jobs/{job_id}"))
        assert (job["status"], job["counts"]["pending"], job["counts"]["in_progress"]) == ("cancelled", 0, 0)
    assert made(await scene.api.get(f"/jobs/{done['job_id']}"))["status"] == "completed"
    assert refusal(await refused(team, 401)) == (401, "Invalid API key")
    left = await scene.rows("select id from virtual_keys where team_id = :id and revoked_at is null", id=team.id)
    assert left == []
    account = await scene.row("select held, used from credit_accounts where team_id = :id", id=team.id)
    assert (account.held, account.used) == (0, 1)
    await agrees(scene, team)


async def test_a_running_call_of_a_deleted_team_is_stopped(scene: Scene):
    team = await scene.team()
    scene.provider.held.clear()
    job = await team.job(calls=[{"messages": HELLO}])
    await scene.provider.until_asked(1)
    made(await scene.api.send("DELETE", f"/teams/{team.id}"))
    await asyncio.gather(*scene.tasks)
    assert [str(call_id) for call_id in scene.provider.closed] == [job["calls"][0]["call_id"]]


async def test_a_deleted_team_is_gone_everywhere(api: Api):
    group = (await api.group())["group_name"]
    team = await api.team(access_groups=[group], credits_allocated=5)
    name, organization = team["team_id"], team["organization_id"]
    before = int((await api.get("/teams?limit=1")).headers["x-total-count"])
    made(await api.send("DELETE", f"/teams/{name}"))

    gone = (404, f"Team '{name}' not found")
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "", {"weight": 2}),
        ("DELETE", "", None),
        ("POST", "/suspend", None),
        ("PUT", "/resume", None),
        ("POST", "/pause", None),
        ("PUT", "/access-groups", []),
        ("PATCH", "/markup", {}),
        ("POST", "/rotate-key", None),
        ("POST", "/keys", {}),
        ("GET", "/keys", None),
    ):
        assert refusal(await api.send(method, f"/teams/{name}{path}", body)) == gone, path
    hook = {"team_id": name, "webhook_url": "http://127.0.0.1:9999/hook"}
    assert refusal(await api.post("/webhooks/register", hook)) == gone
    assert refusal(await api.post("/teams/create", {"organization_id": organization, "team_id": name})) == (
        400,
        f"Team '{name}' already exists",
    )
    after = await api.get("/teams?limit=1000")
    assert int(after.headers["x-total-count"]) == before - 1
    assert name not in {found["team_id"] for found in after.json()}
    shown = made(await api.get(f"/organizations/{organization}"))
    assert (shown["teams"], shown["team_count"], shown["total_credits_allocated"]) == ([], 0, 0)
    assert made(await api.get(f"/model-access-groups/{group}"))["teams_using"] == []


async def test_a_default_team_is_protected(api: Api):
    organization = await api.organization(create_default_team=True)
    name = organization["default_team"]["team_id"]
    assert refusal(await api.send("DELETE", f"/teams/{name}")) == (
        400,
        f"Cannot delete default team '{name}'. Default teams are protected from deletion.",
    )
    made(await api.get(f"/teams/{name}"))


async def test_of_two_deletions_at_once_both_end_with_the_team_gone(scene: Scene):
    team = await scene.team()
    job = await team.job()
    answers = await asyncio.gather(*(scene.api.send("DELETE", f"/teams/{team.id}") for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) in ([200, 200], [200, 404])
    assert made(await scene.api.get(f"/jobs/{job['job_id']}"))["status"] == "cancelled"
    lines = await scene.rows(
        "select action from audit_log where resource_id = :id and action = 'deleted_team'", id=team.id
    )
    assert len(lines) == 1


async def crash_after_deletion(scene: Scene, team: Team) -> None:
    """The commit of a deletion, and nothing of what follows it."""
    await scene.rows(
        "update teams set status = 'deleted', updated_at = app_now() where id = :id returning id", id=team.id
    )


@pytest.mark.parametrize("repaired_by", ["repeat", "sweep"])
async def test_jobs_left_open_by_a_crash_are_cancelled(scene: Scene, repaired_by: str):
    scene.live = False
    team = await scene.team(credits=3)
    open_jobs = [(await team.job(calls=[{"messages": HELLO}]))["job_id"] for _ in range(3)]
    await crash_after_deletion(scene, team)
    assert refusal(await refused(team, 401)) == (401, "Invalid API key")
    if repaired_by == "repeat":
        made(await scene.api.send("DELETE", f"/teams/{team.id}"))
        assert (await scene.api.send("DELETE", f"/teams/{team.id}")).status_code == 404
    else:
        assert await Sweep(rt=scene.rt).jobs_of_deleted_teams() >= 3
    states = await scene.rows("select distinct status from jobs where team_id = :id", id=team.id)
    assert [row.status for row in states] == ["cancelled"]
    assert len(open_jobs) == 3
    await agrees(scene, team)


async def test_more_jobs_than_a_step_are_cancelled(scene: Scene):
    team = await scene.team()
    for _ in range(5):
        await team.job()
    await crash_after_deletion(scene, team)
    assert await deletion.end_jobs(scene.rt, team.id, step=2) == 5
    left = await scene.rows("select id from jobs where team_id = :id and status <> 'cancelled'", id=team.id)
    assert left == []


async def test_keys_made_during_a_deletion_do_not_outlive_it(api: Api, runtime: Runtime):
    team = await api.team()
    name = team["team_id"]
    made_keys = [api.post(f"/teams/{name}/keys", {}) for _ in range(3)]
    answers = await asyncio.gather(*made_keys, api.send("DELETE", f"/teams/{name}"))
    keys = [answer.json()["virtual_key"] for answer in answers[:3] if answer.status_code == 200]
    async with opened(runtime) as fresh:
        for key in keys:
            assert (await fresh.get("/teams/verify", key=key)).status_code == 401


async def test_a_change_waits_for_the_deletion_that_is_under_way(scene: Scene):
    team = await scene.team()

    async def waits() -> bool:
        waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        return bool(await scene.rows(waiting))

    async with scene.rt.db.transaction() as tx:
        await team_objects.delete_team(tx, team.id, None)
        key = asyncio.create_task(scene.api.post(f"/teams/{team.id}/keys", {}))
        await until(waits, "the new key to wait", timeout_s=2)
    assert refusal(await key) == (404, f"Team '{team.id}' not found")


async def test_an_own_key_of_a_deleted_team_cannot_be_taken_over(api: Api):
    key = f"sk-{unique('own')}"
    team = await api.team(virtual_key=key)
    made(await api.send("DELETE", f"/teams/{team['team_id']}"))
    body = {"organization_id": team["organization_id"], "team_id": unique("team"), "virtual_key": key}
    assert refusal(await api.post("/teams/create", body)) == (400, "Virtual key already exists")
