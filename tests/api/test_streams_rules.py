"""Never a gap, never a fork: what a client is told when its call's chunks on Redis are not all there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from api.call_stream import CallStream
from api.streams import Pace
from api.waiting import Waiters
from shared import chunks
from shared.chunks import End
from shared.db import Database
from tests.api.listening import Listener, end, listening, over, words, written_to
from tests.scene import HELLO, Scene, Team
from tests.waiting import until

STOPPED = {"code": "stream_interrupted", "message": "LLM call failed: stream interrupted", "provider": "openai"}


@pytest.fixture
async def team(scene: Scene) -> Team:
    """Nobody works on its calls: what is on Redis is what the test writes."""
    scene.live = False
    scene.app.state.desk = replace(scene.app.state.desk, pace=Pace(end_s=0.2, gap_s=0.3))
    return await scene.team()


class Heard:
    """A streamed call, from its acceptance on."""

    def __init__(self, team: Team, job_id: str) -> None:
        self.team, self.scene, self.job_id = team, team.scene, job_id
        path = f"/jobs/{job_id}/llm-call-stream"
        self._asked = listening(self.scene, team.key, "POST", path, {"messages": HELLO})
        self.call_id = ""

    async def __aenter__(self) -> "Heard":
        self.listener: Listener = await self._asked.__aenter__()
        found = await until(self._found, "the call on record")
        self.call_id = str(found[0].id)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._asked.__aexit__(*error)

    async def _found(self) -> list[Any]:
        return await self.scene.rows("select id from calls where job_id = :id", id=UUID(self.job_id))

    async def write(self, *entries: chunks.Entry) -> None:
        await written_to(self.scene.rt.redis, UUID(self.call_id), *entries)

    async def wipe(self) -> None:
        await self.scene.rt.redis.flushall()

    async def over(self, **fields: Any) -> None:
        await over(self.scene, self.call_id, **fields)

    async def until(self, count: int) -> None:
        await self.listener.until(count)

    async def finish(self) -> Listener:
        return await self.listener.finish()

    @property
    def lost(self) -> dict[str, Any]:
        """The frame that says that chunks of a running call are lost."""
        return self.lost_of("The call goes on")

    def lost_of(self, what: str) -> dict[str, Any]:
        """The same, with what became of the call."""
        path = f"/api/jobs/{self.job_id}/calls/{self.call_id}"
        said = f"LLM call failed: stream interrupted. {what}; read it at {path}"
        return {"error": {"message": said, "type": "api_connection_error", "code": "stream_interrupted"}}


@pytest.fixture
async def heard(team: Team) -> Any:
    async with Heard(team, (await team.job())["job_id"]) as found:
        yield found


async def test_several_chunks_of_one_entry_are_frames_of_their_own(heard: Heard):
    await heard.write(words(3, "a", "b", "c"), end(4))
    told = await heard.finish()
    assert (told.words, told.ids) == ("abc", [1, 2, 3, 4])


async def test_what_a_worker_writes_again_after_a_wipe_is_told_from_where_the_client_is(heard: Heard):
    await heard.write(words(1, "a"), words(2, "b"))
    await heard.until(2)
    await heard.wipe()
    await heard.write(words(3, "a", "b", "c"), end(4))
    told = await heard.finish()
    assert (told.words, told.ids) == ("abc", [1, 2, 3, 4])


async def test_a_wiped_stream_written_again_in_other_pieces_is_told_once(heard: Heard):
    await heard.write(words(4, "a", "b", "c", "d"))
    await heard.until(4)
    await heard.wipe()
    await heard.write(words(2, "a", "b"), words(6, "c", "d", "e", "f"), end(7))
    told = await heard.finish()
    assert (told.words, told.ids) == ("abcdef", list(range(1, 8)))


async def test_a_gap_that_is_filled_soon_is_no_gap(heard: Heard):
    await heard.write(words(1, "a"))
    await heard.until(1)
    await heard.write(words(3, "c"))
    await asyncio.sleep(0.1)
    assert heard.listener.words == "a"
    await heard.wipe()
    await heard.write(words(3, "a", "b", "c"), end(4))
    assert (await heard.finish()).words == "abc"


async def test_a_gap_that_stays_is_told_and_never_passed_over(heard: Heard):
    await heard.write(words(1, "a"))
    await heard.until(1)
    await heard.write(words(3, "c"), end(4))
    told = await heard.finish()
    assert (told.words, told.chunks[-1], told.is_done) == ("a", heard.lost, True)


async def test_another_attempts_words_are_not_mixed_in(heard: Heard):
    await heard.write(words(1, "a"))
    await heard.until(1)
    await heard.write(words(2, "x", attempt=2), end(3, attempt=2))
    told = await heard.finish()
    assert (told.words, told.chunks[-1], told.is_done) == ("a", heard.lost, True)


async def test_an_attempt_that_said_nothing_gives_way_to_the_next(heard: Heard):
    await heard.write(words(1, "x", attempt=2), end(2, attempt=2))
    assert (await heard.finish()).words == "x"


async def test_a_failure_after_the_last_chunk_is_told_in_the_failures_words(heard: Heard):
    await heard.write(words(1, "a"), End(attempt=1, first=2, state="failed", error=STOPPED))
    told = await heard.finish()
    error = {"message": STOPPED["message"], "type": "api_connection_error", "code": "stream_interrupted"}
    assert (told.words, told.chunks[-1], told.is_done) == ("a", {"error": error}, True)


async def test_a_call_that_ended_without_an_end_on_its_stream_is_told_from_its_row(heard: Heard):
    await heard.over(content="Paris")
    told = await heard.finish()
    assert (told.words, told.ids, told.is_done) == ("Paris", [1, 2], True)


async def test_a_part_without_an_end_is_no_answer_to_one_who_has_nothing(team: Team, heard: Heard):
    await heard.write(words(1, "Par"))
    await heard.until(1)
    await heard.over(content="Paris")
    told = await heard.finish()
    assert (told.words, told.chunks[-1], told.is_done) == ("Par", heard.lost_of("The call has completed"), True)
    path = f"/jobs/{heard.job_id}/calls/{heard.call_id}/stream"
    async with listening(team.scene, team.key, "GET", path) as again:
        await again.finish()
    assert (again.words, again.is_done) == ("Paris", True)


async def test_who_has_every_chunk_is_told_the_end_that_redis_never_took(heard: Heard):
    await heard.write(words(2, "Par", "is"))
    await heard.until(2)
    attempt = "insert into attempts (call_id, number, alias, worker, chunks) values (:id, 1, 'a', 'w', 2) returning 1"
    await heard.scene.rows(attempt, id=UUID(heard.call_id))
    await heard.over(content="Paris")
    told = await heard.finish()
    assert (told.words, told.is_done) == ("Paris", True)
    assert told.chunks[-1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert told.chunks[-1]["usage"]["total_tokens"] > 0


async def test_a_worker_that_died_in_mid_stream_ends_it_with_the_failure_on_record(heard: Heard):
    await heard.write(words(1, "a"))
    await heard.until(1)
    await heard.over(error="stream_interrupted")
    told = await heard.finish()
    assert (told.words, told.chunks[-1]["error"]["code"], told.is_done) == ("a", "stream_interrupted", True)


async def test_a_call_cancelled_before_its_first_chunk_is_a_conflict(team: Team, heard: Heard):
    assert (await team.post(f"/jobs/{heard.job_id}/calls/{heard.call_id}/cancel")).status_code == 200
    team.scene.app.state.desk.waiters.wake([UUID(heard.call_id)])
    told = await heard.finish()
    assert (told.status, told.json()) == (409, {"detail": "Call was cancelled"})


async def test_a_lost_notification_costs_a_second_not_a_hang(heard: Heard):
    await heard.write(words(1, "a"))
    await heard.until(1)
    await heard.scene.rows(
        "update calls set state = 'failed', completed_at = app_now(), error_code = 'worker_crashed' where id = :id"
        " returning id",
        id=UUID(heard.call_id),
    )
    assert (await heard.finish()).chunks[-1]["error"]["code"] == "worker_crashed"


async def test_a_frozen_redis_does_not_keep_the_answer_back(heard: Heard):
    await heard.scene.rt.redis.client_pause(2500)
    await heard.over(content="Paris")
    assert (await heard.finish()).words == "Paris"


async def test_the_reader_comes_back_when_redis_hangs_up(heard: Heard):
    await heard.write(words(1, "a"))
    await heard.until(1)
    await heard.scene.rt.redis.client_kill_filter(_type="normal", skipme=True)
    await heard.write(words(2, "b"), end(3))
    assert (await heard.finish()).words == "ab"


async def test_a_slow_client_holds_up_nobody_and_misses_nothing(team: Team, heard: Heard):
    path = f"/jobs/{heard.job_id}/calls/{heard.call_id}/stream"
    async with listening(team.scene, team.key, "GET", path) as slow:
        slow.can_take.clear()
        big = "x" * 50_000
        for n in range(1, 21):
            await heard.write(words(n, big))
        await heard.until(20)
        (feed,) = team.scene.app.state.desk.streams._feeds.values()
        assert len(feed.followers) == 1, "the slow one is passed by"
        await heard.write(end(21))
        told = await heard.finish()
        assert slow.raw == b""
        slow.can_take.set()
        await slow.finish()
    assert slow.raw == told.raw


async def test_a_client_that_takes_nothing_is_dropped_without_an_end(team: Team, heard: Heard):
    desk = team.scene.app.state.desk
    team.scene.app.state.desk = replace(desk, pace=Pace(send_s=0.05))
    path = f"/jobs/{heard.job_id}/calls/{heard.call_id}/stream"
    await heard.write(words(1, "a"))
    async with listening(team.scene, team.key, "GET", path) as stuck:
        await stuck.until(1)
        stuck.can_take.clear()
        await heard.write(words(2, "b"))
        assert stuck.task is not None
        await asyncio.wait_for(stuck.task, 5)
        (feed,) = desk.streams._feeds.values()
        assert len(feed.followers) == 1
    assert (stuck.words, stuck.is_over) == ("a", False)


class Late(Database):
    """What it read is old by the time the reader has it: `meanwhile` happens between the two."""

    meanwhile: Callable[[], Awaitable[None]]

    @asynccontextmanager
    async def hot_statement(self) -> AsyncIterator[Any]:
        async with super().hot_statement() as tx:
            yield tx
        await self.meanwhile()


async def test_an_end_while_the_row_is_read_is_heard_without_the_net(team: Team):
    scene, job_id = team.scene, (await team.job())["job_id"]
    call_id = await team.call(job_id)
    late = Late(scene.rt.settings.database_url, pool=2, name="waybill-late")
    desk = replace(scene.app.state.desk, waiters=Waiters(scene.rt.db, scene.rt.redis))

    async def ends() -> None:
        await over(scene, call_id)
        desk.waiters.wake([UUID(call_id)])

    late.meanwhile = ends
    stream = CallStream(replace(scene.rt, db=late), desk, job_id=UUID(job_id), call_id=UUID(call_id))
    desk.waiters.wake([UUID(call_id)])
    assert await stream.next(0) == []
    assert await stream.next(0), "the stored answer"
    stream.close()
    await late.close()
