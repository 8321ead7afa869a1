"""Files in rows: written as their bytes come, read again as lines or as a range."""

from uuid import UUID

import pytest

from shared import files, ids
from shared.db import Database
from shared.file_reading import content, lines
from shared.file_writing import FileWriter
from shared.files import CHUNK_BYTES, FileGone
from shared.runtime import Runtime
from shared.states import FilePurpose
from tests.scene import Scene


@pytest.fixture
async def written(scene: Scene) -> "Files":
    team = await scene.api.team()
    return Files(scene.rt, team["team_id"])


class Files:
    """The files of one team."""

    def __init__(self, rt: Runtime, team_id: str) -> None:
        self.rt, self.db, self.team_id = rt, rt.db, team_id

    def writer(self, file_id: UUID) -> FileWriter:
        purpose = FilePurpose.BATCH
        return FileWriter(self.db, file_id=file_id, team_id=self.team_id, purpose=purpose, filename="in.jsonl")

    async def of(self, *pieces: bytes) -> UUID:
        """A whole file of these bytes, as they came."""
        writer = self.writer(file_id := ids.new())
        for piece in pieces:
            await writer.write(piece)
        bytes_ = await writer.flush()
        async with self.db.hot_transaction() as tx:
            assert await files.finish(tx, file_id, bytes_)
        return file_id

    async def lines(self, *pieces: bytes, longest: int = 100) -> list[tuple[int, bytes | None]]:
        found = [line async for line in lines(self.db, await self.of(*pieces), longest=longest)]
        return [line for line in found if line[1] != b""]


async def test_lines_are_counted_with_the_blank_ones_and_come_without_their_ends(written: Files):
    text = b'\xef\xbb\xbf{"a":1}\r\n\n  \t\r\n{"b":2}\n\xef\xbb\xbf{"c":3}'
    assert await written.lines(text) == [(0, b'{"a":1}'), (3, b'{"b":2}'), (4, b'\xef\xbb\xbf{"c":3}')]


@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n \n", b"\xef\xbb\xbf"])
async def test_a_file_without_a_line_has_none(written: Files, text: bytes):
    assert await written.lines(text) == []


async def test_a_line_too_long_is_told_and_the_next_one_is_read(written: Files):
    found = await written.lines(b"x" * 100 + b"\r\n" + b"y" * 101 + b"\nz\n" + b"w" * 101)
    assert found == [(0, b"x" * 100), (1, None), (2, b"z"), (3, None)]


async def test_lines_go_over_the_ends_of_chunks(written: Files):
    first, second, third = b"a" * (CHUNK_BYTES - 1), b"b" * (2 * CHUNK_BYTES + 5), b"c" * (CHUNK_BYTES - 9)
    whole = b"\r\n".join((first, second, third, b"d"))
    pieces = [whole[n : n + 700_001] for n in range(0, len(whole), 700_001)]
    assert await written.lines(*pieces, longest=10 * CHUNK_BYTES) == [(0, first), (1, second), (2, third), (3, b"d")]
    assert await written.lines(*pieces, longest=CHUNK_BYTES) == [(0, first), (1, None), (2, third), (3, b"d")]


async def test_a_reader_of_blanks_has_its_turn_after_every_chunk_and_counts_them(written: Files):
    blanks = b"\n" * (CHUNK_BYTES - 4) + b" \r\n\t"
    file_id = await written.of(b"a\n\n", blanks, blanks, b" b\n", b"\n\nc")
    found = [line async for line in lines(written.db, file_id, longest=100)]
    many = 2 * (CHUNK_BYTES - 3)
    assert [raw for _, raw in found] == [b"a", b"", b"\t b", b"c"]
    assert [found[0][0], *(number for number, _ in found[2:])] == [0, 2 + many, 5 + many]


async def bytes_of(db: Database, file_id: UUID, start: int, stop: int) -> bytes:
    return b"".join([piece async for piece in content(db, file_id, start, stop)])


async def test_a_range_is_read(written: Files):
    whole = bytes(range(251)) * (2 * CHUNK_BYTES // 251 + 3)
    file_id = await written.of(whole)
    for start in (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 5):
        for stop in (start, start + 1, start + 2, start + CHUNK_BYTES, len(whole)):
            assert await bytes_of(written.db, file_id, start, stop) == whole[start:stop]


async def test_reading_what_is_deleted_meanwhile_does_not_end_as_if_it_were_whole(written: Files):
    file_id = await written.of(b"a\n" * CHUNK_BYTES)
    reading = lines(written.db, file_id, longest=100)
    assert await anext(reading) == (0, b"a")
    async with written.db.hot_transaction() as tx:
        assert await files.lock(tx, file_id, written.team_id)
        assert await files.hide(tx, [file_id]) == 1
        await files.delete_chunks(tx, limit=9, file_id=file_id)
    with pytest.raises(FileGone):
        async for _ in reading:
            pass
    with pytest.raises(FileGone):
        await anext(lines(written.db, file_id, longest=100))


async def test_a_file_is_seen_only_when_it_is_whole_and_by_its_team(written: Files):
    writer = written.writer(file_id := ids.new())
    await writer.write(b"a" * CHUNK_BYTES)
    async with written.db.hot_transaction() as tx:
        assert await files.read(tx, file_id, written.team_id) is None
        assert not await files.hold(tx, file_id, written.team_id)
        assert await files.finish(tx, file_id, await writer.flush(), expires_after_s=3600)
        assert not await files.finish(tx, file_id, 7)
        found = await files.read(tx, file_id, written.team_id)
        assert found is not None
        assert found.bytes == CHUNK_BYTES
        assert (found.expires_at - found.created_at).total_seconds() == 3600
        assert await files.hold(tx, file_id, written.team_id)
        assert await files.read(tx, file_id, "another") is None
        assert not await files.hold(tx, file_id, "another")
        assert not await files.lock(tx, file_id, "another")


async def test_nothing_is_added_to_a_hidden_file(written: Files):
    writer = written.writer(file_id := ids.new())
    await writer.write(b"a" * CHUNK_BYTES)
    async with written.db.hot_transaction() as tx:
        assert await files.hide(tx, [file_id]) == 1
        assert not await files.finish(tx, file_id, 1)
    with pytest.raises(FileGone):
        await writer.write(b"b" * CHUNK_BYTES)
