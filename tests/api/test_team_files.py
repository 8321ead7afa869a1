"""What all files of one team may have together: it uploads no more beyond that, and its batches end all the same."""

from typing import Any, NoReturn

import pytest
from starlette.requests import Request

from api.auth import Caller
from api.uploads import receive_file, stored_body
from shared import files, ids, keys
from shared.file_writing import LOOK_BYTES, FileWriter
from shared.files import CHUNK_BYTES, TeamFilesFull
from shared.states import FilePurpose
from tests.api.batch_requests import CHAT, batch_of, create, ended, items, ndjson, send, tended
from tests.api.gateway import problem, said
from tests.api.uploading import END, FILE, FORM, PURPOSE, ask, post, rows, upload, uploaded
from tests.scene import Scene, Team

BOUND = 2 * CHUNK_BYTES
MOST = b"x" * (BOUND - CHUNK_BYTES // 2)
"""Leaves half a chunk of the bound."""
TOO_MUCH = b"x" * (CHUNK_BYTES // 2 + 1)
FULL = (413, "invalid_request_error", None, 413)


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"team_files_mb": 2})


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


def writer(scene: Scene, team: Team, bound: int | None = BOUND) -> FileWriter:
    """A file of this team's on its way."""
    purpose = FilePurpose.BATCH
    return FileWriter(
        scene.rt.db, file_id=ids.new(), team_id=team.id, purpose=purpose, filename="in.jsonl", team_bytes=bound
    )


async def stored(scene: Scene, team: Team) -> int:
    async with scene.rt.db.hot_statement() as tx:
        return await files.stored_bytes(tx, team.id)


async def test_a_team_whose_files_are_full_uploads_again_once_it_has_deleted_one(scene: Scene, team: Team):
    first = await uploaded(team, MOST)
    refused = await upload(team, TOO_MUCH)
    assert problem(refused) == FULL
    assert said(refused) == (
        "This team keeps 1.5 MB in files and may keep 2 MB: this one does not fit. "
        "Delete files it no longer needs, or wait until they expire"
    )
    assert [row.bytes for row in await rows(team)] == [len(MOST)]
    assert (await upload(await scene.team(models=0), TOO_MUCH)).status_code == 200
    await uploaded(team, TOO_MUCH[1:])
    assert (await ask(team, "DELETE", f"/{first['id']}")).status_code == 200
    await uploaded(team, TOO_MUCH)


async def test_a_body_that_announces_too_much_is_refused_before_it_is_read(scene: Scene, team: Team):
    async def receive() -> NoReturn:
        raise AssertionError("the body was read")

    await uploaded(team, MOST)
    said_ = {**FORM, "Content-Length": str(BOUND)}
    headers = [(name.lower().encode(), text.encode()) for name, text in said_.items()]
    request = Request({"type": "http", "method": "POST", "headers": headers, "app": scene.app}, receive)
    async with scene.rt.db.hot_statement() as tx:
        caller = Caller(team_id=team.id, key=await keys.find_own(tx, team.id))
    for received in (
        receive_file(scene.rt, caller, request),
        stored_body(scene.rt, caller, request, filename="in.jsonl", limit_bytes=9 * BOUND),
    ):
        with pytest.raises(TeamFilesFull):
            await received


async def test_uploads_under_way_count_as_far_as_they_have_come_until_they_are_given_up(scene: Scene, team: Team):
    under_way = writer(scene, team)
    await under_way.write(MOST)
    assert await stored(scene, team) == CHUNK_BYTES
    assert problem(await upload(team, b"x" * (CHUNK_BYTES + 1))) == FULL
    assert await under_way.flush() == len(MOST)
    assert problem(await upload(team, TOO_MUCH)) == FULL
    await under_way.discard()
    assert await stored(scene, team) == 0


async def test_what_has_expired_does_not_count(scene: Scene, team: Team):
    await uploaded(team, MOST, **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"})
    async with scene.later(3599) as rt, rt.db.hot_statement() as tx:
        assert await files.stored_bytes(tx, team.id) == len(MOST)
    async with scene.later(3601) as rt, rt.db.hot_statement() as tx:
        assert await files.stored_bytes(tx, team.id) == 0


async def test_a_long_file_looks_again_what_the_others_have_become(scene: Scene, team: Team):
    bound = LOOK_BYTES + CHUNK_BYTES
    long, other = writer(scene, team, bound), writer(scene, team, bound)
    await long.write(b"x" * LOOK_BYTES)
    await other.write(b"x" * CHUNK_BYTES)
    with pytest.raises(TeamFilesFull):
        await long.write(b"x" * CHUNK_BYTES)
    assert await stored(scene, team) == bound


async def test_lines_that_come_with_a_batch_are_held_to_it_too(scene: Scene, team: Team):
    await uploaded(team, MOST)
    long = items(team, *(f"{number}-{'x' * 500}" for number in range(1200)))
    query = f"?endpoint={CHAT}&completion_window=24h"
    for tried in (
        create(team, requests=long),
        create(team, requests=long, query="?dry_run=true"),
        send(team, "POST", query, content=ndjson(long), Content_Type="application/x-ndjson"),
    ):
        assert problem(await tried) == FULL
    assert [row.bytes for row in await rows(team)] == [len(MOST)]
    assert await scene.rows("select id from batches where team_id = :id", id=team.id) == []


async def test_a_batch_writes_its_output_when_nothing_else_has_room_and_the_output_counts(scene: Scene, team: Team):
    async with tended(scene):
        batch = await batch_of(team, "a", "b")
        await writer(scene, team, None).write(b"x" * BOUND)
        before = await stored(scene, team)
        over = await ended(team, batch)
    output = (await ask(team, "GET", f"/{over['output_file_id']}")).json()
    assert (over["status"], over["request_counts"]["completed"]) == ("completed", 2)
    assert await stored(scene, team) - before == output["bytes"] > 0
    assert problem(await post(team, FILE + PURPOSE + END)) == FULL


async def test_an_upload_sent_again_is_answered_as_before_though_the_team_is_full_by_now(team: Team):
    first: dict[str, Any] = await uploaded(team, TOO_MUCH, key="k")
    await uploaded(team, MOST[1:])
    again = await upload(team, TOO_MUCH, key="k")
    assert (again.status_code, again.json()) == (200, first)
    assert problem(await upload(team, TOO_MUCH, key="another")) == FULL
    assert len(await rows(team)) == 2
