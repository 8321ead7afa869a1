"""Batches from the upload to the webhook: what a client reads at every moment, what it pays, what it may run again."""

import asyncio
import base64
import os
import re
import struct
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests import batches
from tests.batches import Line, ended, events_of, files_of, line, said, submit
from tests.hooks import Hooks
from tests.invariants import verify
from tests.programs import PROJECT
from tests.stack import Stack
from tests.team import Team, accepted
from tests.waiting import until
from tests.workers.receiver import response

SECRET = f"whsec_{base64.b64encode(b'b' * 32).decode()}"
POSTED = "/v1/batches"
LATE, BROKEN = "late line", "broken line"


async def test_a_batch_is_followed_paid_told_of_and_its_failed_lines_run_again(stack: Stack) -> None:
    team = await stack.team(fallbacks=1)
    await stack.provider.script({"fault": "status", "status": 400}, match=BROKEN, repeat=True)
    await stack.provider.hold(LATE)
    endpoint, callback, readable = await hearing(stack, team)
    asked = story(team)

    made = await submit(team, asked, callback_url=callback.url, callback_secret=SECRET, metadata={"night": "7"})
    assert (made["status"], made["request_counts"]["total"]) == ("in_progress", len(asked))
    watching = asyncio.create_task(watch(team, made["id"]))
    followed, first_came = await following(team, made["id"])
    await first_came.wait()
    assert (await batches.read(team, made["id"]))["status"] == "in_progress"
    await stack.provider.release()
    batch = await ended(team, made["id"])

    output, errors = await files_of(team, batch)
    assert batch["status"] == "completed"
    assert {said(output[each["custom_id"]]) for each in asked if "France" in str(each)} == {"Paris"}
    assert set(errors) == {each["custom_id"] for each in asked if BROKEN in str(each)}
    assert {each["response"]["status_code"] for each in errors.values()} == {400}
    assert {each["custom_id"]: each for each in await followed} == {**output, **errors}
    assert await watching > 3
    for hooks in (endpoint, callback):
        (event,) = await hooks.arrived(1)
        assert (event["type"], event["data"]["id"]) == ("batch.completed", made["id"])
        assert event["data"]["output_file_id"] == batch["output_file_id"]
        assert event["data"]["credits_charged"] == batch["credits_charged"] == len(output)
    assert readable == [httpx.codes.OK] * 2
    assert batch["cost_usd"] == round(sum(each["cost_usd"] for each in output.values()), 9) > 0
    assert batch["usage"]["total_tokens"] == sum(
        each["response"]["body"]["usage"]["total_tokens"] for each in output.values()
    )
    assert (await team.balance())["credits_held"] == 0

    await again(stack, team, batch, set(errors))
    assert await team.charges() == [len(output), len(errors)]
    usage = accepted(await team.client.get(f"/api/teams/{team.team_id}/usage"))
    assert usage["by_job_type"] == {"batch": 2}
    assert usage["summary"]["total_calls"] == len(asked) + len(errors)
    await verify(stack, delivered=True)


async def again(stack: Stack, team: Team, batch: dict[str, Any], failed: set[str]) -> None:
    """The failed lines alone run again, in a batch of their own; nothing is left to be retried after that."""
    await stack.provider.reset()
    retried = accepted(await team.client.post(f"/v1/batches/{batch['id']}/retry", json={}))
    assert (retried["retry_of"], retried["request_counts"]["total"]) == (batch["id"], len(failed))
    retried = await ended(team, retried["id"])
    output, errors = await files_of(team, retried)
    assert (set(output), errors, retried["error_file_id"]) == (failed, {}, None)
    assert (await batches.read(team, batch["id"]))["output_file_id"] == batch["output_file_id"]


async def test_embeddings_come_back_in_the_encoding_that_was_asked_for(stack: Stack) -> None:
    team = await stack.team()
    body = {"model": team.alias, "input": "a text", "dimensions": 8}
    asked = [
        {"custom_id": "floats", "body": body},
        {"custom_id": "packed", "body": {**body, "encoding_format": "base64"}},
    ]
    new = {"endpoint": batches.EMBEDDINGS, "completion_window": "15m", "requests": asked}

    made = accepted(await team.client.post("/v1/batches", json=new))
    batch = await ended(team, made["id"])

    output, errors = await files_of(team, batch)
    assert not errors
    vectors = {name: each["response"]["body"]["data"][0]["embedding"] for name, each in output.items()}
    unpacked = struct.unpack("<8f", base64.b64decode(vectors["packed"]))
    assert [round(value, 6) for value in unpacked] == [round(value, 6) for value in vectors["floats"]]
    assert (await batches.lines_of(team, batch["input_file_id"])).keys() == output.keys()


async def test_an_expired_and_a_cancelled_batch_keep_and_bill_what_was_done(stack: Stack) -> None:
    expired, cancelled = await stack.team(), await stack.team()
    late, ended_early = await half_done(stack, expired), await half_done(stack, cancelled)

    await window_closes(stack, late["id"])
    answer = accepted(await cancelled.client.post(f"/v1/batches/{ended_early['id']}/cancel"))
    assert answer["status"] in ("cancelling", "cancelled")
    await stack.provider.asked(cancelled.model, 3, outcome="disconnected")
    for team, made, status in ((expired, late, "expired"), (cancelled, ended_early, "cancelled")):
        batch = await ended(team, made["id"])
        output, errors = await files_of(team, batch)
        assert (batch["status"], len(output), batch["request_counts"][status]) == (status, 2, 3)
        assert {each["error"]["code"] for each in errors.values()} == {f"batch_{status}"}
        assert await team.charges() == [2]
        told = [type_ for type_ in await events_of(stack, made["id"]) if type_.startswith("batch.")]
        assert told == [f"batch.{status}"]
        assert accepted(await team.client.post(f"/v1/batches/{made['id']}/cancel")) == batch

    job = await expired.ended(batches.job_id(late["id"]))
    assert (job["status"], job["failure_reason"]) == ("failed", "deadline_exceeded")
    await verify(stack)


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
async def test_the_lines_of_the_documents_run_as_printed(stack: Stack, tmp_path: Path, page: str) -> None:
    team = await stack.team()
    [block] = [
        each for each in re.findall(r"```sh\n(.*?)```", (PROJECT / page).read_text(), re.DOTALL) if POSTED in each
    ]
    script = block.replace("gpt-4", team.alias)

    process = await asyncio.create_subprocess_exec(
        *("sh", "-euc", script),
        env={"PATH": os.environ["PATH"], "WAYBILL_KEY": team.key, "WAYBILL_URL": stack.api_url},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    said = (await process.communicate())[0].decode()

    assert process.returncode == 0
    assert '"Paris"' in said, said
    assert '"status":"completed"' in said, said


def story(team: Team) -> list[Line]:
    """Lines for two models, some of which fail, some of which are late."""
    kinds = ["capital of France", "capital of Italy", "plain", BROKEN, LATE]
    return [
        line(team, f"{kind} {n}", f"{kind} {n}", model=team.aliases[n % 2])
        for kind, count in zip(kinds, (8, 8, 8, 3, 3), strict=True)
        for n in range(count)
    ]


async def window_closes(stack: Stack, batch_id: str) -> None:
    """Now, and not in hours."""
    for table, column, key in (
        ("batches", "expires_at", "id"), ("calls", "deadline_at", "job_id"), ("jobs", "deadline_at", "id"),
    ):  # fmt: skip
        await stack.sql(f"update {table} set {column} = now() where {key} = %s", batches.job_id(batch_id))


async def half_done(stack: Stack, team: Team) -> dict[str, Any]:
    """A batch of five lines of which two have ended and three are held by the provider."""
    await stack.provider.hold(LATE)
    texts = ["capital of France", "capital of Italy", *(f"{LATE} {n}" for n in range(3))]
    made = await submit(team, [line(team, text, text) for text in texts])
    await stack.provider.asked(team.model, 3, outcome="held")

    async def two_ended() -> bool:
        return bool((await batches.read(team, made["id"]))["request_counts"]["completed"] == 2)

    await until(two_ended, "two lines end")
    return made


async def hearing(stack: Stack, team: Team) -> tuple[Hooks, Hooks, list[int]]:
    """An endpoint for batch events and a receiver for a callback, and what each found when it looked at the file."""
    readable: list[int] = []
    heard = []
    for _ in range(2):

        async def look_first(writer: asyncio.StreamWriter, place: int = len(heard)) -> None:
            event = orjson.loads(heard[place].receiver.received[-1].body)
            found = await team.client.get(f"/v1/files/{event['data']['output_file_id']}/content")
            readable.append(found.status_code)
            writer.write(response(200))

        heard.append(await stack.receiver(look_first))
    endpoint, callback = heard
    await team.register(endpoint, ["batch.*"])
    callback.secret = SECRET
    return endpoint, callback, readable


async def watch(team: Team, batch_id: str) -> int:
    """Read as fast as it goes until the end: counts add up, nothing that ended is taken back. Returns how often."""
    reads, done = 0, 0
    while (batch := await batches.read(team, batch_id))["status"] not in batches.FINAL:
        counts = batch["request_counts"]
        over = counts["total"] - counts["pending"] - counts["in_progress"]
        assert over >= done, "a line that had ended is open again"
        reads, done = reads + 1, over
    return reads


async def following(team: Team, batch_id: str) -> tuple[asyncio.Task[list[Line]], asyncio.Event]:
    """Follows the results to the end, in the background; the event is set with the first line."""
    first_came = asyncio.Event()

    async def read() -> list[Line]:
        found = []
        path = f"/v1/batches/{batch_id}/results"
        async with team.client.stream("GET", path, params={"follow": "true"}) as answer:
            assert answer.status_code == httpx.codes.OK
            async for text in answer.aiter_lines():
                if text.strip():
                    found.append(orjson.loads(text))
                    first_came.set()
        return found

    return asyncio.create_task(read()), first_came
