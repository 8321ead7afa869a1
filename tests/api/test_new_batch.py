"""What the client of a new batch is told when it takes long, or cannot be read: never to send it again."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from shared.db import Database, Tx
from shared.runtime import Runtime
from tests import scene as scenes
from tests.api.batch_requests import batch_of, create, items, ndjson, read, send, tended, uuid_of
from tests.api.gateway import problem, said
from tests.scene import Scene, Team


class Leaving(Database):
    """Postgres that goes away when it is told to."""

    is_away = False

    def hot_statement(self) -> AbstractAsyncContextManager[Tx]:
        if self.is_away:
            raise ConnectionError
        return super().hot_statement()


@pytest.fixture
async def leaving(runtime: Runtime) -> AsyncIterator[Leaving]:
    database = Leaving(runtime.settings.database_url, pool=4)
    yield database
    await database.close()


async def test_a_batch_that_cannot_be_read_any_more_is_told_as_it_was_made(runtime: Runtime, leaving: Leaving):
    async with scenes.opened(replace(runtime, db=leaving)) as scene:
        team = await scene.team()

        async def goes_away(_: object) -> None:
            leaving.is_away = True

        scene.live, scene.tend = True, goes_away
        called = {"callback_url": "http://127.0.0.1:9999/hook", "callback_events": ["batch.completed"]}
        told = await batch_of(team, "a", metadata={"for": "reports"}, Prefer="wait=0.05", **called)
        leaving.is_away = False

        assert told["status"] == "validating"
        assert told == await read(team, told["id"])
        assert len((await send(team, "GET")).json()["data"]) == 1


async def test_a_dry_run_that_nobody_waits_for_leaves_neither_row_nor_lines(scene: Scene, team: Team):
    query = "?endpoint=/v1/chat/completions&completion_window=24h&dry_run=true"
    type_ = {"Content_Type": "application/x-ndjson", "Prefer": "wait=0.01"}
    found = await send(team, "POST", query, content=ndjson(items(team, "a")), **type_)
    assert problem(found)[0] == 503
    assert await scene.rows("select id from batches where team_id = :id", id=team.id) == []
    assert await scene.rows("select id from files where team_id = :id and expires_at > app_now()", id=team.id) == []


async def test_a_dry_run_is_not_checked_longer_than_its_client_may_wait(scene: Scene, team: Team):
    async with tended(scene):
        await create(team, "a", query="?dry_run=true")
    [row] = await scene.rows("select expires_at - created_at as left from batches where team_id = :id", id=team.id)
    assert row.left.total_seconds() == 60


async def test_a_refusal_for_money_that_was_told_late_frees_the_key(scene: Scene):
    async with tended(scene) as unit:
        team = await scene.team(credits=0)
        scene.tend = None
        first = await batch_of(team, "a", Idempotency_Key="k", Prefer="wait=0")
        await unit.take([uuid_of(first)])
        await read(team, first["id"], "?wait=10")
        again = await batch_of(team, "a", Idempotency_Key="k")
        assert (again["id"], again["status"]) == (first["id"], "failed")
        scene.tend = unit.take
        await scene.api.post(f"/credits/teams/{team.id}/add", {"amount": 1})
        third = await batch_of(team, "a", Idempotency_Key="k")
        assert (third["id"] != first["id"], third["status"]) == (True, "in_progress")


async def test_too_many_values_in_a_body_are_told_the_way_of_lines(team: Team):
    given = [{"custom_id": "a", "body": {"n": [1] * 300_000}}]
    found = await create(team, requests=given)
    assert problem(found)[0] == 400
    assert "send up to 200 MB of lines as application/x-ndjson, or upload a file at /v1/files" in said(found)


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()
