"""Four ways to wait for the same thing; what is applied is said, and nobody is held longer than he asked."""

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.requests import Request

from api.held_read import held_read
from api.prefer import Preference
from api.waiting import Waiters
from shared import ids, redis_keys
from tests.scene import HELLO, Scene, Team
from tests.waiting import until


@pytest.fixture
async def held(scene: Scene, team: Team) -> tuple[str, str]:
    """A call that runs until the provider lets go."""
    scene.provider.held.clear()
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id)
    await scene.provider.until_asked(1)
    return job_id, call_id


@pytest.mark.parametrize(
    ("asked", "applied"),
    [
        ("respond-async", "respond-async"),
        ("wait=0", "wait=0"),
        ("respond-async, wait=0", "wait=0"),
        ("wait=-5", "wait=0"),
        ("handling=lenient, wait=0", "wait=0"),
    ],
)
async def test_what_was_applied_is_said(scene: Scene, team: Team, asked: str, applied: str):
    scene.live = False
    job_id = (await team.job())["job_id"]
    answer = await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO}, Prefer=asked)
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == applied
    assert "Prefer" in answer.headers["vary"]


@pytest.mark.parametrize("asked", ["wait=9999", "wait=600"])
async def test_a_wait_is_at_most_ten_minutes(team: Team, asked: str):
    job_id = (await team.job())["job_id"]
    answer = await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO}, Prefer=asked)
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=600")


async def test_a_wait_that_ends_first_is_202_and_the_call_goes_on(scene: Scene, team: Team):
    scene.provider.held.clear()
    job_id = (await team.job())["job_id"]
    answer = await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO}, Prefer="wait=0.1")
    assert answer.status_code == 202
    scene.provider.held.set()
    read = await team.get(f"/jobs/{job_id}/calls/{answer.json()['call_id']}?wait=10")
    assert (read.json()["status"], "retry-after" in read.headers) == ("completed", False)


@pytest.mark.parametrize("way", ["query", "prefer"])
async def test_a_read_is_held_until_the_call_ends(scene: Scene, team: Team, held: tuple[str, str], way: str):
    path = f"/jobs/{held[0]}/calls/{held[1]}"
    reading = asyncio.create_task(team.get(f"{path}?wait=20") if way == "query" else team.get(path, Prefer="wait=20"))
    await asyncio.sleep(0.05)
    assert not reading.done()
    scene.provider.held.set()
    assert (await reading).json()["response"]["content"] == "Paris"


async def test_a_read_is_held_until_the_job_ends(scene: Scene, team: Team, held: tuple[str, str]):
    reading = asyncio.create_task(team.get(f"/jobs/{held[0]}?wait=20"))
    await asyncio.sleep(0.05)
    scene.provider.held.set()
    await asyncio.wait(scene.tasks, timeout=10)
    assert not reading.done(), "the job is still open"
    await team.complete(held[0])
    assert (await reading).json()["status"] == "completed"


async def test_a_held_read_gives_up_in_time(team: Team, held: tuple[str, str]):
    read = await team.get(f"/jobs/{held[0]}/calls/{held[1]}?wait=0.1")
    assert (read.status_code, read.json()["status"]) == (200, "in_progress")


async def test_a_lost_notification_costs_a_second_not_a_hang(scene: Scene, team: Team):
    scene.live = False
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id)
    reading = asyncio.create_task(team.get(f"/jobs/{job_id}/calls/{call_id}?wait=60"))
    await scene.work_on(call_id)
    async with asyncio.timeout(10):
        assert (await reading).json()["status"] == "completed"


async def test_an_unchanged_thing_is_304(team: Team):
    job_id = (await team.job())["job_id"]
    first = await team.get(f"/jobs/{job_id}")
    tag = first.headers["etag"]
    assert tag.startswith('"')
    for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await team.get(f"/jobs/{job_id}", If_None_Match=sent)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await team.get(f"/jobs/{job_id}", If_None_Match='"other"')).status_code == 200
    await team.complete(job_id)
    changed = await team.get(f"/jobs/{job_id}", If_None_Match=tag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_with_a_tag_a_read_is_held_until_the_thing_changes(scene: Scene, team: Team, held: tuple[str, str]):
    path = f"/jobs/{held[0]}/calls/{held[1]}"
    tag = (await team.get(path)).headers["etag"]
    same = await team.get(f"{path}?wait=0.1", If_None_Match=tag)
    assert same.status_code == 304
    reading = asyncio.create_task(team.get(f"{path}?wait=20", If_None_Match=tag))
    await asyncio.sleep(0.05)
    assert not reading.done()
    scene.provider.held.set()
    assert (await reading).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("headers", "looks", "pause_s"),
    [([], 2, 0), ([(b"if-none-match", b"*")], 5, 0.01)],
    ids=["its end", "a change"],
)
async def test_only_who_waits_for_a_change_looks_again_and_again(
    scene: Scene, headers: list[Any], looks: int, pause_s: float
):
    waiters = Waiters(scene.rt.db, scene.rt.redis, reread_s=0)
    paces: list[float] = []

    async def read() -> tuple[dict[str, Any], bool]:
        paces.append(waiters.reread_s)
        return {}, len(paces) == 5

    request = Request({"type": "http", "headers": headers})
    await held_read(waiters, request, ids.new(), Preference(wait_s=0.3, applied=None), read)
    assert paces == [pause_s] * looks


async def test_the_more_clients_wait_for_a_change_the_more_seldom_each_looks(scene: Scene):
    waiters = scene.app.state.desk.waiters
    assert waiters.reread_s == 1
    with ExitStack() as clients:
        for _ in range(500):
            clients.enter_context(waiters.rereading())
        assert waiters.reread_s == 5
    assert waiters.reread_s == 1


async def test_what_nobody_understands_on_the_channel_stops_nobody_from_listening(scene: Scene):
    waiters, id_, channel = scene.app.state.desk.waiters, ids.new(), redis_keys.ended_channel()
    finished = waiters.expect(id_)
    await until(lambda: scene.rt.redis.publish(channel, b"odd"), "the subscription")
    await scene.rt.redis.publish(channel, id_.hex)
    assert await waiters.wait(id_, finished, 5)


async def test_nobody_is_remembered_after_he_left(scene: Scene, team: Team, held: tuple[str, str]):
    path = f"/jobs/{held[0]}/calls/{held[1]}"
    await team.get(f"{path}?wait=0.1")
    reading = asyncio.create_task(team.get(f"{path}?wait=60"))
    await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert scene.app.state.desk.waiters._waiting == {}
