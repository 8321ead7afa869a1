"""Files: uploaded as a stream, listed, read in parts, deleted; of one team only."""

import asyncio
from collections.abc import AsyncIterator
from itertools import product

import httpx
import pytest

from shared import batches, files, ids
from shared.batches import NewBatch
from shared.files import CHUNK_BYTES
from shared.states import Endpoint
from tests.api.gateway import problem, said
from tests.api.uploading import END, FILE, FORM, LINES, PURPOSE, ask, own, part, post, rows, upload, uploaded
from tests.scene import Scene, Team
from tests.waiting import until

DAY_S = 86_400


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(models=0)


async def new_batch(team: Team, file_id: str) -> NewBatch:
    """A batch that reads this file."""
    input_file_id = ids.parse_file(file_id)
    assert input_file_id is not None
    return NewBatch(
        id=ids.new(), team_id=team.id, key_id=ids.new(), endpoint=Endpoint.CHAT, input_file_id=input_file_id,
        completion_window="24h", window_s=DAY_S, dry_run=True,
    )  # fmt: skip


async def test_an_uploaded_file_is_read_as_it_was_sent(team: Team):
    data = bytes(range(256)) * 5000
    file = await uploaded(team, data, name="a/b\\wörk\x7f 1.jsonl")
    assert file == {
        "id": file["id"],
        "object": "file",
        "bytes": len(data),
        "created_at": file["created_at"],
        "expires_at": file["created_at"] + 30 * DAY_S,
        "filename": "wörk 1.jsonl",
        "purpose": "batch",
        "status": "processed",
    }
    assert file["id"].startswith("file-")
    assert (await ask(team, "GET", f"/{file['id']}")).json() == file
    content = await ask(team, "GET", f"/{file['id']}/content")
    assert (content.status_code, content.content) == (200, data)
    assert content.headers["content-type"] == "application/jsonl"
    assert content.headers["content-length"] == str(len(data))
    assert content.headers["content-disposition"] == (
        "attachment; filename=\"w_rk 1.jsonl\"; filename*=UTF-8''w%C3%B6rk%201.jsonl"
    )


async def test_an_empty_file_is_a_file(team: Team):
    file = await uploaded(team, b"", name="n" * 300)
    assert (file["bytes"], file["filename"]) == (0, "n" * 255)
    content = await ask(team, "GET", f"/{file['id']}/content")
    assert (content.status_code, content.content) == (200, b"")
    assert problem(await ask(team, "GET", f"/{file['id']}/content", Range="bytes=0-")) == (
        416, "invalid_request_error", None, 416,
    )  # fmt: skip


async def test_a_file_of_no_use_is_refused_before_it_is_read(team: Team):
    taken = []

    async def body() -> AsyncIterator[bytes]:
        yield part("purpose", "fine-tune").encode()
        yield FILE.removesuffix("{}\r\n").encode()
        for n in range(3):
            taken.append(n)
            yield bytes(CHUNK_BYTES)

    found = await team.scene.client.post("/v1/files", content=body(), headers={**FORM, **own(team)})
    assert problem(found) == (400, "invalid_request_error", "purpose", 400)
    assert (taken, await rows(team)) == ([], [])


async def test_fields_may_come_after_the_file_and_what_is_not_known_is_passed_over(team: Team):
    after = part("expires_after[seconds]", "3600") + part("expires_after[anchor]", "created_at")
    made = await post(team, part("user", "x" * 9000) + FILE + PURPOSE + after + END)
    assert made.status_code == 200, made.text
    assert made.json()["expires_at"] - made.json()["created_at"] == 3600
    assert (await ask(team, "GET", f"/{made.json()['id']}/content")).content == b"{}"


KEPT = part("expires_after[anchor]", "created_at")
REFUSED = [
    (FILE + part("purpose", "fine-tune") + END, "purpose", "Input should be 'batch'"),
    (FILE + END, "purpose", "'purpose' is a required property"),
    (PURPOSE + END, "file", "'file' is a required property"),
    (PURPOSE + part("file", "in.jsonl") + END, "file", "curl write -F file=@"),
    (PURPOSE + FILE + FILE + END, "file", "came twice"),
    (PURPOSE + FILE + PURPOSE + END, "purpose", "came twice"),
    (FILE + part("purpose", "b" * 300) + END, "purpose", "too long"),
    (FILE + PURPOSE + part("expires_after[seconds]", "7200") + END, "expires_after.anchor", "required"),
    (FILE + PURPOSE + part("expires_after[seconds]", "60") + KEPT + END, "expires_after.seconds", "equal to 3600"),
    (FILE + PURPOSE, None, "Unexpected end of multipart stream"),
    (FILE.replace("\r\n\r\n", "\r\nX: " + "y" * 9000 + "\r\n\r\n") + PURPOSE + END, None, "header length"),
    (FILE + PURPOSE + part("x", "") * 20 + END, None, "segment count"),
    ("", None, "Unexpected end of multipart stream"),
]


async def test_an_upload_is_refused_with_what_is_wrong_and_leaves_nothing(team: Team):
    for body, param, words in REFUSED:
        refused = await post(team, body)
        assert problem(refused) == (400, "invalid_request_error", param, 400), words
        assert words in said(refused)
        assert await rows(team) == [], words


async def test_headers_alone_refuse_an_upload(team: Team):
    for name, text, status, words in (
        ("Content_Type", "application/json", 400, "multipart/form-data with the parts 'file' and 'purpose'"),
        ("Content_Type", "multipart/form-data", 400, "multipart/form-data with the parts"),
        ("Content_Type", f"multipart/form-data; boundary={'b' * 71}", 400, "multipart/form-data with the parts"),
        ("Content_Encoding", "gzip", 400, "send the body as it is"),
        ("Content_Length", str(2**29 + 2**20), 413, "at most 512 MB"),
        ("Idempotency_Key", "two words", 400, "Invalid Idempotency-Key"),
    ):
        refused = await post(team, FILE + PURPOSE + END, **{name: text})
        assert (refused.status_code, await rows(team)) == (status, [])
        assert words in said(refused)


async def test_files_are_listed_page_by_page(scene: Scene, team: Team):
    empty = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert (await ask(team, "GET")).json() == empty
    one, two, three = [await uploaded(team) for _ in range(3)]
    await scene.rows(
        "update files set purpose = 'batch_output' where id = :id returning id", id=ids.parse_file(two["id"])
    )
    two["purpose"] = "batch_output"
    assert (await ask(team, "GET")).json()["data"] == [three, two, one]
    page = (await ask(team, "GET", params={"limit": 2, "order": "asc"})).json()
    assert page == {"object": "list", "data": [one, two], "first_id": one["id"], "last_id": two["id"], "has_more": True}
    rest = (await ask(team, "GET", params={"limit": 2, "order": "asc", "after": two["id"]})).json()
    assert (rest["data"], rest["has_more"]) == ([three], False)
    assert (await ask(team, "GET", params={"after": two["id"]})).json()["data"] == [one]
    assert (await ask(team, "GET", params={"purpose": "batch_output"})).json()["data"] == [two]
    for wrong in ({"limit": 0}, {"limit": 10_001}, {"order": "up"}, {"after": "7"}):
        assert problem(await ask(team, "GET", params=wrong)) == (400, "invalid_request_error", *wrong, 400)


async def test_what_is_not_the_teams_is_not_there(scene: Scene, team: Team):
    other = await scene.team(models=0)
    file_id = (await uploaded(other))["id"]
    names = (file_id, ids.file(ids.new()), "file-7", file_id.upper(), file_id.replace("-", "_"))
    for name, (method, path) in product(names, (("GET", ""), ("GET", "/content"), ("DELETE", ""))):
        unknown = await ask(team, method, f"/{name}{path}")
        assert problem(unknown) == (404, "not_found_error", "id", 404)
        assert said(unknown) == f"No such File object: {name}"
    assert (await ask(team, "GET")).json()["data"] == []
    assert (await ask(other, "GET", f"/{file_id}")).status_code == 200


async def test_a_range_is_served(team: Team):
    data = bytes(range(253)) * (CHUNK_BYTES // 253 + 3)
    content = f"/{(await uploaded(team, data))['id']}/content"
    for asked, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, None),
        ("bytes=-7", -7, None),
        ("bytes=-99999999", 0, None),
        (f"bytes={CHUNK_BYTES - 2}-{CHUNK_BYTES + 1}", CHUNK_BYTES - 2, CHUNK_BYTES + 2),
        ("Bytes= 3-99999999", 3, None),
    ):
        found = await ask(team, "GET", content, Range=asked)
        first, end, _ = slice(start, stop).indices(len(data))
        assert (found.status_code, found.content) == (206, data[start:stop])
        assert found.headers["content-range"] == f"bytes {first}-{end - 1}/{len(data)}"
        assert found.headers["content-length"] == str(end - first)


async def test_a_range_that_says_nothing_is_passed_over_and_one_outside_is_refused(team: Team):
    content = f"/{(await uploaded(team))['id']}/content"
    for asked in ("bytes=", "bytes=-", "bytes=2-1", "bytes=a-b", "lines=0-1", "bytes=0-1,4-5", "bytes=0-1x"):
        assert (await ask(team, "GET", content, Range=asked)).status_code == 200
    for asked in (f"bytes={len(LINES)}-", "bytes=-0", "bytes=999-1000"):
        refused = await ask(team, "GET", content, Range=asked)
        assert problem(refused) == (416, "invalid_request_error", None, 416)
        assert refused.headers["content-range"] == f"bytes */{len(LINES)}"


async def test_a_download_goes_on_only_with_the_same_file_and_is_not_repeated(team: Team):
    content = f"/{(await uploaded(team))['id']}/content"
    tag = (await ask(team, "GET", content)).headers["etag"]
    part_ = {"Range": "bytes=0-3"}
    assert (await ask(team, "GET", content, **part_, If_Range=tag)).content == LINES[:4]
    assert (await ask(team, "GET", content, **part_, If_Range='"another"')).content == LINES
    unchanged = await ask(team, "GET", content, If_None_Match=tag)
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    head = await ask(team, "HEAD", content, **part_)
    assert (head.status_code, head.content, head.headers["content-length"]) == (206, b"", "4")
    other = f"/{(await uploaded(team))['id']}/content"
    assert (await ask(team, "GET", other)).headers["etag"] != tag


async def test_a_deleted_file_is_gone_with_its_bytes(scene: Scene, team: Team):
    file_id = (await uploaded(team, b"x" * (CHUNK_BYTES + 1)))["id"]
    deleted = await ask(team, "DELETE", f"/{file_id}")
    assert deleted.json() == {"id": file_id, "object": "file", "deleted": True}
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert (await ask(team, method, f"/{file_id}{path}")).status_code == 404
    assert await rows(team) == []
    left = "select number from file_chunks where file_id = :id"
    assert await scene.rows(left, id=ids.parse_file(file_id)) == []


async def test_a_file_that_a_running_batch_reads_is_not_deleted(scene: Scene, team: Team):
    file_id = (await uploaded(team))["id"]
    batch = await new_batch(team, file_id)
    async with scene.rt.db.transaction() as tx:
        await batches.create(tx, batch)
    refused = await ask(team, "DELETE", f"/{file_id}")
    assert problem(refused) == (409, "conflict", None, 409)
    assert "A batch that has not ended reads this file" in said(refused)
    assert (await ask(team, "GET", f"/{file_id}/content")).content == LINES

    await scene.rows("update batches set status = 'failed' where id = :id returning id", id=batch.id)
    assert (await ask(team, "DELETE", f"/{file_id}")).status_code == 200


async def test_of_a_batch_and_a_deletion_at_once_one_is_refused(scene: Scene, team: Team):
    file_id = (await uploaded(team))["id"]
    batch = await new_batch(team, file_id)
    async with scene.rt.db.transaction() as tx:
        assert await files.hold(tx, batch.input_file_id, team.id)
        deleting: asyncio.Task[httpx.Response] = asyncio.create_task(ask(team, "DELETE", f"/{file_id}"))
        waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        await until(lambda: scene.rows(waits), "the deletion waits for the batch")
        await batches.create(tx, batch)
    assert (await deleting).status_code == 409
    assert (await ask(team, "GET", f"/{file_id}")).status_code == 200


async def test_a_repeated_upload_is_one_file(team: Team):
    first = await upload(team, key="k")
    again = await upload(team, key="k")
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert (again.status_code, again.json()) == (200, first.json())
    assert (again.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)
    assert len(await rows(team)) == 1


async def test_uploads_of_one_key_at_once_are_one_file(team: Team):
    answers = await asyncio.gather(*(upload(team, key="k") for _ in range(3)))
    assert {answer.json()["id"] for answer in answers if answer.status_code == 200} == {
        ids.file(row.id) for row in await rows(team)
    }
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len(await rows(team)) == 1


async def test_a_key_stands_for_the_bytes_and_what_is_said_of_them(team: Team):
    file = await uploaded(team, key="k")
    kept = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    for other in (upload(team, LINES + b" ", key="k"), upload(team, name="b", key="k"), upload(team, key="k", **kept)):
        assert problem(await other) == (422, "invalid_request_error", None, "idempotency_key_reused")
    assert [ids.file(row.id) for row in await rows(team)] == [file["id"]]
