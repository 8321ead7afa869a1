"""Bodies that come piece by piece: bounded in bytes and in time, and nothing is left of one that breaks off."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from api.auth import Caller
from api.body import BodyStalled, pieces, read_body
from api.open_uploads import MOST_AT_ONCE, TooManyUploads
from api.uploads import FileTooLarge, Upload, receive_file, stored_body
from shared import files, keys
from shared.errors import WaybillError
from shared.files import CHUNK_BYTES
from tests.api.uploading import END, FORM, PURPOSE, part, rows
from tests.scene import Scene, Team

SIZE = 2 * CHUNK_BYTES + 5
BODY = (part("file", "x" * SIZE, '; filename="in.jsonl"') + PURPOSE + END).encode()


class Client:
    """Sends a body in pieces; of one that does not end it says nothing more, or goes."""

    def __init__(self, body: bytes, *, ends: bool = True, goes: bool = False) -> None:
        self._left = [body[n : n + 70_001] for n in range(0, len(body), 70_001)]
        self._ends, self._goes = ends and not goes, goes

    async def receive(self) -> Message:
        if self._left:
            body = self._left.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._left) or not self._ends}
        if not self._goes:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    def request(self, app: Any = None) -> Request:
        headers = [(name.lower().encode(), text.encode()) for name, text in FORM.items()]
        return Request({"type": "http", "method": "POST", "headers": headers, "app": app}, self.receive)


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(models=0)


@pytest.fixture
async def caller(scene: Scene, team: Team) -> Caller:
    async with scene.rt.db.hot_statement() as tx:
        return Caller(team_id=team.id, key=await keys.find_own(tx, team.id))


async def received(scene: Scene, caller: Caller, client: Client, *, limit_bytes: int = SIZE) -> Upload:
    return await receive_file(scene.rt, caller, client.request(scene.app), limit_bytes=limit_bytes)


async def test_a_file_of_the_largest_size_is_taken_and_one_byte_more_is_not(scene: Scene, team: Team, caller: Caller):
    upload = await received(scene, caller, Client(BODY))
    assert (upload.writer.bytes, len(await rows(team))) == (SIZE, 1)
    await upload.discard()
    with pytest.raises(FileTooLarge):
        await received(scene, caller, Client(BODY), limit_bytes=SIZE - 1)
    assert await rows(team) == []


async def test_nobody_sends_endless_parts_beside_the_file(scene: Scene, team: Team, caller: Caller):
    more = part("user", "y" * 70_000)
    with pytest.raises(FileTooLarge):
        await received(scene, caller, Client(BODY.replace(END.encode(), (more + END).encode())))
    assert await rows(team) == []


async def test_what_breaks_off_leaves_nothing(scene: Scene, team: Team, caller: Caller):
    with pytest.raises(ClientDisconnect):
        await received(scene, caller, Client(BODY[:SIZE], goes=True))
    assert await rows(team) == []


async def test_what_is_finished_is_not_discarded(scene: Scene, team: Team, caller: Caller):
    upload = await received(scene, caller, Client(BODY))
    async with scene.rt.db.transaction() as tx:
        await upload.finish(tx)
    await upload.discard()
    async with scene.rt.db.hot_statement() as tx:
        assert (await files.read(tx, upload.file_id, team.id)) is not None
        assert await files.chunk(tx, upload.file_id, 2) == b"xxxxx"


async def test_a_body_that_is_the_file_is_stored_as_it_is(scene: Scene, team: Team, caller: Caller):
    body = b'{"custom_id":"a"}\n' * 60_000
    stored = await stored_body(scene.rt, caller, Client(body).request(scene.app), filename="b", limit_bytes=len(body))
    async with scene.rt.db.transaction() as tx:
        await stored.finish(tx)
        assert (await files.chunk(tx, stored.file_id, 0), stored.writer.bytes) == (body[:CHUNK_BYTES], len(body))
    with pytest.raises(FileTooLarge):
        await stored_body(scene.rt, caller, Client(body).request(scene.app), filename="b", limit_bytes=len(body) - 1)
    assert len(await rows(team)) == 1


async def test_a_team_sends_so_many_files_at_a_time(scene: Scene, caller: Caller):
    sending = [asyncio.create_task(received(scene, caller, Client(b"", ends=False))) for _ in range(MOST_AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyUploads) as refused:
        await received(scene, caller, Client(BODY))
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "5")
    sending.pop().cancel()
    await asyncio.sleep(0)
    assert (await received(scene, caller, Client(BODY))).writer.bytes == SIZE
    for each in sending:
        each.cancel()
    await asyncio.gather(*sending, return_exceptions=True)


async def test_a_client_that_sends_nothing_more_is_not_waited_for():
    with pytest.raises(BodyStalled, match=r"Nothing more of the body came for 0\.01 seconds"):
        await all_of(pieces(Client(BODY[:9], ends=False).request(), SIZE * 2, idle_s=0.01))


async def test_nor_is_one_whose_body_is_kept_in_memory():
    with pytest.raises(BodyStalled):
        await read_body(Client(BODY[:9], ends=False).request(), SIZE * 2, idle_s=0.01)


async def test_a_body_may_not_take_for_ever():
    with pytest.raises(BodyStalled, match="at most") as refused:
        await all_of(pieces(Client(BODY).request(), SIZE * 2, most_s=0))
    error: WaybillError = refused.value
    assert (error.status, error.headers["Connection"]) == (408, "close")


async def all_of(coming: AsyncIterator[bytes]) -> int:
    return sum([len(piece) async for piece in coming])
