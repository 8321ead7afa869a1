"""New work is refused while workers are far behind, and only then; health tells the truth about it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import httpx
import pytest
from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.app import create_app
from api.http import given_of
from api.routes import health
from shared import waiting_calls
from shared.db import Database
from shared.runtime import Runtime, redis_client
from tests import scene as scenes
from tests.api.admin import refusal
from tests.scene import HELLO, Scene, Team
from tests.waiting import until

MOST_S = 0.3
PAUSE_MS = 1500


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """One of this test's own: old calls of any team count."""
    return fresh_database_url


@pytest.fixture
async def scene(runtime: Runtime) -> AsyncIterator[Scene]:
    """Nobody hears a bell, and workers are behind after MOST_S."""
    async with scenes.opened(runtime, max_queue_age_s=MOST_S) as found:
        yield found


async def ready(scene: Scene) -> httpx.Response:
    return await scene.client.get("/health/readiness")


async def says(scene: Scene, queue: str) -> httpx.Response:
    """Readiness, once it says this of the queue."""

    async def found() -> httpx.Response | None:
        answer = await ready(scene)
        return answer if answer.json()["queue"] == queue else None

    answer = await until(found, f"readiness says {queue}")
    assert answer is not None
    return answer


async def lacking_after_s(scene: Scene, seconds: float) -> float:
    """For how long the oldest call will have lacked a worker by then."""
    async with scene.later(seconds) as rt, rt.db.statement() as tx:
        return await waiting_calls.lacking_a_worker_s(tx)


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


def free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        return port


@asynccontextmanager
async def served(rt: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(rt)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://waybill") as client,
    ):
        yield client


def true(answer: httpx.Response, endpoint: object) -> dict[str, object]:
    """The body, when it is what the route says it answers."""
    TypeAdapter(given_of(endpoint).answers[answer.status_code]).validate_python(answer.json(), strict=True)
    body: dict[str, object] = answer.json()
    return body


async def test_new_work_is_refused_while_the_oldest_call_waits_too_long_for_a_worker(scene: Scene, team: Team):
    first = await team.job(calls=[{"messages": HELLO}])
    open_job = (await scene.rows("select id from jobs"))[0].id
    told = await says(scene, "backlog")

    body = true(told, health.readiness)
    assert (told.status_code, body["status"], body["db"], body["redis"]) == (200, "degraded", "connected", "connected")
    assert "for a worker" in told.json()["reasons"][0]
    refused = [
        await team.post("/jobs/create", {"team_id": team.id, "job_type": "test", "calls": [{"messages": HELLO}]}),
        await team.post("/jobs/create", {"team_id": team.id, "job_type": "test"}),
        await team.submit(str(open_job)),
    ]
    assert [refusal(answer) for answer in refused] == [(503, "Service temporarily unavailable")] * 3
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
    assert len(await scene.rows("select id from calls")) == 1
    assert (await team.get(f"/jobs/{open_job}")).status_code == 200, "reads go on"

    await scene.work_on(first["calls"][0]["call_id"])
    await says(scene, "ok")
    await team.job(calls=[{"messages": HELLO}])


async def test_a_refusal_for_backlog_uses_nothing_of_a_limit(scene: Scene):
    team = await scene.team(rpm_limit=2)
    await team.job(calls=[{"messages": HELLO}])
    await says(scene, "backlog")
    refused = await team.post("/jobs/create", {"team_id": team.id, "job_type": "test"})
    assert refused.status_code == 503

    await scene.work_on(str((await scene.row("select id from calls")).id))
    await says(scene, "ok")
    accepted = await team.post("/jobs/create", {"team_id": team.id, "job_type": "test"})
    assert (accepted.status_code, accepted.headers["X-RateLimit-Remaining"]) == (200, "0")


async def test_the_oldest_call_is_found_among_the_rung_and_the_waiting(scene: Scene, team: Team):
    assert await lacking_after_s(scene, 100) == 0
    await team.job(calls=[{"messages": HELLO}])
    assert 100 <= await lacking_after_s(scene, 100) < 110
    await scene.rows("update calls set rung_at = null returning id")
    assert 100 <= await lacking_after_s(scene, 100) < 110


async def test_ringing_again_makes_no_call_younger(scene: Scene, team: Team):
    await team.job(calls=[{"messages": HELLO}])
    async with scene.later(50) as rt, rt.db.statement() as tx:
        assert len(await waiting_calls.lost(tx, batched=False, rung_before_s=5, limit=10)) == 1
    assert await lacking_after_s(scene, 100) >= 100


async def test_calls_that_a_limit_holds_back_do_not_count(scene: Scene):
    team = await scene.team(max_parallel_calls=1)
    first = (await team.job(calls=[{"messages": HELLO}] * 3))["calls"][0]["call_id"]
    assert len(await scene.worker.claim([UUID(first)])) == 1
    assert await lacking_after_s(scene, 100) == 0


async def test_calls_that_are_not_due_do_not_count(scene: Scene, team: Team):
    await team.job(calls=[{"messages": HELLO}])
    await scene.rows("update calls set run_at = run_at + interval '90 seconds', rung_at = run_at returning id")
    assert await lacking_after_s(scene, 80) == 0
    assert 9 <= await lacking_after_s(scene, 100) < 20


async def test_running_calls_do_not_count(scene: Scene, team: Team):
    call = (await team.job(calls=[{"messages": HELLO}]))["calls"][0]["call_id"]
    await scene.worker.claim([UUID(call)])
    assert await lacking_after_s(scene, 100) == 0


async def test_time_with_redis_down_does_not_count(scene: Scene, team: Team):
    await team.job(calls=[{"messages": HELLO}])
    await says(scene, "backlog")
    door = scene.app.state.desk.door
    async with redis_client(scene.rt.settings.redis_url) as client:
        await client.client_pause(PAUSE_MS)
        await door.look()
        assert not door.is_backlogged
        door.check()
        await until(lambda: _answers(client), "Redis goes on")
    await door.look()
    assert door.age_s <= await lacking_after_s(scene, 0) - 1, "from the end of the pause on, which a timeout of 1 s saw"


async def _answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except RedisError:
        return False


async def test_readiness_without_redis_is_degraded_and_limited_teams_are_refused(scene: Scene):
    limited, free = await scene.team(rpm_limit=5), await scene.team()
    async with (
        redis_client(f"redis://127.0.0.1:{free_port()}") as nobody,
        served(replace(scene.rt, redis=nobody)) as client,
    ):
        told = await client.get("/health/readiness")
        answers = {
            team.id: await client.post(
                "/api/jobs/create",
                json={"team_id": team.id, "job_type": "test"},
                headers={"Authorization": f"Bearer {team.key}"},
            )
            for team in (limited, free)
        }

    assert told.status_code == 200
    assert true(told, health.readiness) == {
        "status": "degraded",
        "db": "connected",
        "redis": "disconnected",
        "queue": "unknown",
        "reasons": ["redis unreachable"],
    }
    assert refusal(answers[limited.id]) == (503, "Service temporarily unavailable")
    assert answers[free.id].status_code == 200


async def test_health_without_a_database(scene: Scene):
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    rt = replace(scene.rt, db=Database(url, pool=2, name="waybill-none"))
    async with served(rt) as client:
        database, readiness = await client.get("/health/db"), await client.get("/health/readiness")
    await rt.db.close()

    assert database.status_code == readiness.status_code == 503
    assert true(database, health.database) == {"status": "unhealthy", "database": "disconnected"}
    assert true(readiness, health.readiness)["db"] == "disconnected"
    assert int(database.headers["Retry-After"]) >= 1
    assert int(readiness.headers["Retry-After"]) >= 1


async def test_readiness_on_a_database_that_takes_no_writes_is_degraded(scene: Scene):
    session = {"default_transaction_read_only": "on"}
    rt = replace(scene.rt, db=Database(scene.rt.settings.database_url, pool=2, session=session))
    async with served(rt) as client:
        told = await client.get("/health/readiness")
    await rt.db.close()

    assert told.status_code == 200
    assert true(told, health.readiness)["status"] == "degraded"
    assert told.json()["reasons"] == ["database takes no writes"]


async def test_health_of_a_system_that_is_well(scene: Scene):
    for path, endpoint, body in (
        ("/health", health.health, {"status": "healthy", "service": "waybill", "version": "0.1.0"}),
        ("/health/db", health.database, {"status": "healthy", "database": "connected"}),
        ("/health/liveness", health.liveness, "I'm alive!"),
        (
            "/health/readiness",
            health.readiness,
            {"status": "healthy", "db": "connected", "redis": "connected", "queue": "ok", "reasons": []},
        ),
    ):
        answer = await scene.client.get(path)
        assert (answer.status_code, true(answer, endpoint)) == (200, body)


async def test_a_process_that_ends_takes_no_new_work_and_says_so(scene: Scene, team: Team):
    await scene.app.state.desk.door.close()
    told = await ready(scene)

    assert (told.status_code, true(told, health.readiness)) == (503, {"status": "shutting_down"})
    refused = await team.post("/jobs/create", {"team_id": team.id, "job_type": "test"})
    assert refusal(refused) == (503, "Service temporarily unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
