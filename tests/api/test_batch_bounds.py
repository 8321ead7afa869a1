"""How much of batches a team may have at once: what waits for its check, and lines that have not ended."""

from collections.abc import AsyncIterator

import pytest

from shared.runtime import Runtime
from tests import scene as scenes
from tests.api.batch_requests import batch_of, create, read, send, tended, uuid_of
from tests.api.gateway import problem, said
from tests.scene import Scene

LIMITED = (429, "rate_limit_error", None, 429)


@pytest.fixture
async def scene(runtime: Runtime) -> AsyncIterator[Scene]:
    async with scenes.opened(runtime, team_batch_checks=2, team_batch_lines=3) as found:
        yield found


async def test_no_more_batches_than_a_few_wait_for_their_check(scene: Scene):
    team, other = await scene.team(), await scene.team()
    first = await batch_of(team, "a", Prefer="wait=0")
    await batch_of(team, "a", Prefer="wait=0")
    for query in ("", "?dry_run=true"):
        found = await create(team, "a", query=query, Prefer="wait=0")
        assert problem(found) == LIMITED
        assert said(found) == "Queue limit exceeded: 2 batches of this team wait for their check"
        assert found.headers["retry-after"] == "10"
    assert len((await send(team, "GET")).json()["data"]) == 2
    await batch_of(other, "a", Prefer="wait=0")
    async with tended(scene) as unit:
        await unit.take([uuid_of(first)])
        await read(team, first["id"], "?wait=10")
        assert (await create(team, "a", Prefer="wait=0")).status_code == 200


async def test_no_more_lines_than_a_team_may_have_are_accepted(scene: Scene):
    async with tended(scene):
        team = await scene.team()
        first = await batch_of(team, "a", "b")
        found = await create(team, "c", "d", Idempotency_Key="k")
        assert problem(found) == LIMITED
        told = "Queue limit exceeded: 2 lines of this team have not ended, this batch has 2 more, and 3 are taken"
        assert (said(found), found.headers["retry-after"]) == (told, "60")
        dry = (await create(team, "c", "d", query="?dry_run=true")).json()
        assert (dry["valid"], dry["errors"], dry["fits"]) == (True, None, False)
        refused = (await send(team, "GET")).json()["data"][0]
        assert (refused["job_id"], refused["status"]) == (found.headers["x-job-id"], "failed")
        assert refused["errors"]["data"][0]["code"] == "rate_limited"

        await batch_of(team, "c")
        full = await create(team, "d", Idempotency_Key="k2")
        assert problem(full) == LIMITED
        assert said(full) == "Queue limit exceeded: 3 lines of this team have not ended, and 3 are taken"
        assert "x-job-id" not in full.headers, "nothing was made of it"
        await send(team, "POST", f"/{first['id']}/cancel", {})
        assert (await batch_of(team, "c", "d", Idempotency_Key="k"))["status"] == "in_progress"
