"""The lines of a batch as they end: page by page behind a count, or as they come until the last one."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from api.line_waiting import MOST_BYTES, LineWatch
from api.streams import Pace
from shared import batch_results, ids
from shared.batch_results import Progress
from shared.db import Database
from tests import ended_lines
from tests.api.gateway import problem, said
from tests.api.listening import Listener, listening
from tests.ended_lines import begun, more, over
from tests.scene import Scene, Team
from tests.waiting import until


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    return module_database_url


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


def path(id_: UUID, query: str = "") -> str:
    return f"/v1/batches/{ids.batch(id_)}/results?{query}"


async def results(team: Team, id_: UUID, query: str = "") -> httpx.Response:
    return await team.scene.client.get(path(id_, query), headers={"Authorization": f"Bearer {team.key}"})


async def page(team: Team, id_: UUID, query: str = "") -> tuple[list[str], int]:
    """The names of the lines, and the cursor behind them."""
    found = await results(team, id_, query)
    assert found.status_code == 200, found.text
    return [orjson.loads(line)["custom_id"] for line in found.text.splitlines()], int(found.headers["x-next-after"])


def following(team: Team, id_: UUID, query: str = "follow=true") -> Any:
    return listening(team.scene, team.key, "GET", path(id_, query), under="")


def lines(heard: Listener) -> list[str]:
    """The names of the whole lines that came."""
    return [orjson.loads(line)["custom_id"] for line in heard.raw.split(b"\n")[:-1] if line]


async def heard_lines(heard: Listener, count: int) -> list[str]:
    async with asyncio.timeout(10), heard.came:
        await heard.came.wait_for(lambda: len(lines(heard)) >= count)
    return lines(heard)


def patient(scene: Scene, **pace: float) -> None:
    """Change how long streams wait."""
    scene.app.state.desk = replace(scene.app.state.desk, pace=Pace(**pace))


def names(first: int, last: int) -> list[str]:
    return [f"line-{n}" for n in range(first, last + 1)]


async def test_lines_are_read_while_the_batch_runs_page_by_page_behind_a_count(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "bad", "good")
    assert await page(team, id_, "limit=2") == (names(1, 2), 2)
    assert await page(team, id_, "limit=2&after=2") == (names(3, 3), 3)
    assert await page(team, id_, "after=3") == ([], 3)
    await more(scene, id_, "cancelled")
    assert await page(team, id_, "after=3") == (names(4, 4), 4)
    assert await page(team, id_) == (names(1, 4), 4)


async def test_the_cursor_of_a_larger_batch_is_refused(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "good")
    for query in ("after=3", "after=3&follow=true"):
        found = await results(team, id_, query)
        assert (problem(found), said(found)) == (
            (400, "invalid_request_error", "after", 400), "after is 3, but the batch has 2 lines"
        )  # fmt: skip
    assert await page(team, id_, "after=2") == ([], 2)


async def test_a_line_is_shown_as_in_the_files(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "bad")
    found = await results(team, id_)
    good, bad = map(orjson.loads, found.content.splitlines())
    assert good["response"]["body"]["choices"][0]["message"]["content"] == "Paris"
    assert (good["cost_usd"], bad["response"]["status_code"]) == (0.000001, 429)
    assert found.headers["content-type"] == "application/x-ndjson"
    assert found.headers["cache-control"] == "no-cache"


async def test_long_answers_are_read_one_by_one_and_come_whole(scene: Scene, team: Team):
    id_ = await begun(scene, team)
    long = {"choices": [{**ended_lines.SAID["choices"][0], "message": {"content": random.randbytes(100_000).hex()}}]}
    await more(scene, id_, *["good"] * 3, response=long)
    await more(scene, id_, "good")
    async with scene.rt.db.hot_statement() as tx:
        read = [await batch_results.page(tx, id_, after, most_bytes=MOST_BYTES) for after in range(4)]
    assert [[line.custom_id for line in found] for found in read] == [[name] for name in names(1, 4)]
    assert await page(team, id_) == (names(1, 4), 4)


async def test_who_follows_hears_each_line_as_it_ends_and_the_end(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good")
    async with following(team, id_) as heard:
        assert await heard_lines(heard, 1) == names(1, 1)
        await more(scene, id_, "bad", "good")
        assert await heard_lines(heard, 3) == names(1, 3)
        assert not heard.is_over
        await more(scene, id_, "good")
        await over(scene, id_)
        assert not heard.is_over, "its files are not written yet"
        await final(scene, id_)
        await heard.finish()
    assert (lines(heard), heard.is_over) == (names(1, 4), True)
    assert "x-next-after" not in heard.answered


async def test_who_comes_again_goes_on_behind_what_he_has(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "good", "good")
    await over(scene, id_)
    await final(scene, id_)
    async with following(team, id_, "follow=true&after=2&limit=1") as heard:
        await heard.finish()
    assert lines(heard) == names(3, 3)


async def test_a_final_batch_is_read_as_a_running_one(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good", "expired")
    await over(scene, id_, "failed", "deadline_exceeded")
    assert await page(team, id_) == (names(1, 2), 2)


async def test_a_batch_that_is_still_checked_has_no_lines_and_a_refused_one_ends_who_follows(scene: Scene, team: Team):
    id_ = await begun(scene, team)
    await scene.rows("update batches set status = 'validating' where id = :id returning id", id=id_)
    assert await page(team, id_) == ([], 0)
    async with following(team, id_) as heard:
        await watched(scene, 1)
        await over(scene, id_, "failed")
        await final(scene, id_, "failed")
        await heard.finish()
    assert (heard.raw, heard.status) == (b"", 200)


async def final(scene: Scene, id_: UUID, status: str = "completed") -> None:
    await scene.rows("update batches set status = :status where id = :id returning id", id=id_, status=status)


async def watched(scene: Scene, count: int) -> None:
    async def so_many() -> bool:
        return bool(scene.app.state.desk.lines.following == count)

    await until(so_many, f"{count} follow a batch")


async def test_in_silence_a_blank_line_tells_that_we_live(scene: Scene, team: Team):
    patient(scene, silence_s=0.05)
    id_ = await begun(scene, team, "good")
    async with following(team, id_) as heard, asyncio.timeout(10), heard.came:
        await heard.came.wait_for(lambda: heard.raw.count(b"\n") >= 3)
    assert heard.raw.endswith(b"}\n\n\n")
    assert heard.writes[1:] == [b"\n"] * (len(heard.writes) - 1)


async def test_a_client_that_hangs_up_is_followed_no_more(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good")
    async with following(team, id_) as heard:
        await heard_lines(heard, 1)
        await watched(scene, 1)
    await watched(scene, 0)
    assert not heard.is_over


async def test_a_client_that_takes_nothing_is_left_without_an_end(scene: Scene, team: Team):
    patient(scene, send_s=0.05)
    id_ = await begun(scene, team, "good")
    await over(scene, id_)
    async with following(team, id_) as heard:
        heard.can_take.clear()
        async with asyncio.timeout(10):
            await asyncio.shield(heard.task)
        assert (heard.is_over, scene.app.state.desk.lines.following) == (False, 0)


async def test_a_server_that_closes_lets_its_followers_go(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good")
    async with following(team, id_) as heard:
        await heard_lines(heard, 1)
        await scene.app.state.desk.lines.close()
        await heard.finish()
    assert lines(heard) == names(1, 1)


async def test_who_only_wants_the_head_gets_it(scene: Scene, team: Team):
    id_ = await begun(scene, team, "good")
    found = await scene.client.head(path(id_), headers={"Authorization": f"Bearer {team.key}"})
    assert (found.status_code, found.content, found.headers["x-next-after"]) == (200, b"", "1")


async def test_a_query_that_makes_no_sense_is_refused(scene: Scene, team: Team):
    id_ = await begun(scene, team)
    for query in ("after=-1", "after=x", "limit=0", "limit=10001", "follow=perhaps"):
        found = await results(team, id_, query)
        assert problem(found) == (400, "invalid_request_error", query.partition("=")[0], 400)


async def test_other_teams_batches_are_as_unknown_as_none(scene: Scene, team: Team):
    other = await scene.team()
    id_ = await begun(scene, team, "good")
    for unknown, who in ((id_, other), (ids.new(), team)):
        found = await results(who, unknown)
        assert found.status_code == 404
        assert said(found) == f"No batch found with id '{ids.batch(unknown)}'."
    own = {"Authorization": f"Bearer {team.key}"}
    assert (await scene.client.get(f"/v1/batches/{id_}/results", headers=own)).status_code == 404
    await scene.rows("update batches set dry_run = true where id = :id returning id", id=id_)
    assert (await results(team, id_)).status_code == 404


class Watched(Database):
    """Counts the connections that were asked for; the next ones, `faults` of them, are not to be had."""

    asked = 0
    faults = 0

    @asynccontextmanager
    async def hot_statement(self):
        self.asked += 1
        if self.faults:
            self.faults -= 1
            raise ConnectionError
        async with super().hot_statement() as tx:
            yield tx


@pytest.fixture
async def db(scene: Scene) -> AsyncIterator[Watched]:
    """What the scene's streams of lines read from."""
    made = Watched(scene.rt.settings.database_url, pool=2, name="waybill-watched")
    watch = LineWatch(made, look_every_s=0.05)
    await watch.open()
    scene.app.state.desk = replace(scene.app.state.desk, lines=watch)
    yield made
    await watch.close()
    await made.close()


async def test_followers_who_are_level_share_a_look_and_a_read(scene: Scene, team: Team, db: Watched):
    id_ = await begun(scene, team, "good")
    watch = scene.app.state.desk.lines
    followers = [watch.follow(id_, Progress(lines=1, ended=1, is_over=False)) for _ in range(50)]
    await more(scene, id_, "good")
    await asyncio.gather(*(follower.wait(5) for follower in followers))
    before = db.asked
    pages = await asyncio.gather(*(follower.page(1) for follower in followers))
    assert {page.last for page in pages} == {2}
    assert db.asked - before <= 2
    assert db.asked < 50


async def test_who_follows_waits_for_a_database_that_is_away(scene: Scene, team: Team, db: Watched):
    id_ = await begun(scene, team, "good")
    await over(scene, id_)
    await final(scene, id_)
    db.faults = 1
    async with following(team, id_) as heard:
        await heard.finish()
    assert (lines(heard), db.faults) == (names(1, 1), 0)


async def test_a_page_that_cannot_be_read_on_is_left_without_an_end(scene: Scene, team: Team, db: Watched):
    id_ = await begun(scene, team, "good")
    db.faults = 1
    async with following(team, id_, "limit=1") as heard:
        async with asyncio.timeout(10):
            await asyncio.shield(heard.task)
        assert (heard.status, heard.is_over) == (200, False)
