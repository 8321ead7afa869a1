"""Files and batches through the SDK, from the upload to the last line of the output."""

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from tests.contract.sdk_world import BASES, Connect, Eager, World
from tests.demo import DemoProvider
from tests.waiting import until

FINAL = {"completed", "failed", "expired", "cancelled"}
CHAT = "/v1/chat/completions"


def line(client: Eager, custom_id: str, text: str, **fields: Any) -> dict[str, Any]:
    body = {"model": client.account.alias, "messages": [{"role": "user", "content": text}], **fields}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


async def uploaded(client: Eager, lines: Sequence[dict[str, Any]]) -> Any:
    data = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
    return await client.files.create(file=("in.jsonl", data), purpose="batch")


async def started(client: Eager, lines: Sequence[dict[str, Any]], **fields: Any) -> Any:
    file = await uploaded(client, lines)
    return await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", **fields)


async def ended(client: Eager, batch_id: str) -> Any:
    """The batch once it is final, asked for as the SDK's users do."""

    async def final() -> Any:
        batch = await client.batches.retrieve(batch_id)
        return batch if batch.status in FINAL else None

    return await until(final, f"the end of {batch_id}", 25)


async def lines_of(client: Eager, world: World, file_id: str | None) -> dict[str, dict[str, Any]]:
    """A result file's lines by custom_id; their calls are noted."""
    assert file_id
    content = await client.files.content(file_id)
    found = [json.loads(each) for each in content.text.splitlines()]
    world.note(each["call_id"] for each in found)
    assert len({each["custom_id"] for each in found}) == len(found)
    return {each["custom_id"]: each for each in found}


@pytest.mark.parametrize("base", BASES)
async def test_a_file_becomes_a_batch_and_its_answers_two_files(
    connect: Connect, world: World, provider: DemoProvider, base: str
):
    client, broken = connect(base=base), f"broken {uuid4().hex}"
    await provider.script({"fault": "status", "status": 400}, match=broken)
    file = await uploaded(
        client,
        [line(client, "fr", "capital of France"), line(client, "bad", broken), line(client, "it", "capital of Italy")],
    )
    assert (file.object, file.purpose, file.filename, file.status) == ("file", "batch", "in.jsonl", "processed")

    batch = await client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"night": "1"}
    )
    assert (batch.object, batch.endpoint, batch.input_file_id) == ("batch", CHAT, file.id)
    assert batch.metadata == {"night": "1"}
    batch = await ended(client, batch.id)

    assert batch.status == "completed"
    assert batch.completed_at >= batch.in_progress_at >= batch.created_at
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
    answers = await lines_of(client, world, batch.output_file_id)
    said = {name: each["response"]["body"]["choices"][0]["message"]["content"] for name, each in answers.items()}
    assert said == {"fr": "Paris", "it": "Rome"}
    completions = [
        openai.types.chat.ChatCompletion.model_validate(each["response"]["body"]) for each in answers.values()
    ]
    assert batch.usage.total_tokens == sum(each.usage.total_tokens for each in completions if each.usage)
    [failed] = (await lines_of(client, world, batch.error_file_id)).values()
    assert (failed["custom_id"], failed["response"]["status_code"], failed["error"]) == ("bad", 400, None)
    assert failed["response"]["body"]["error"]["message"]


async def test_the_lines_of_the_readme_run_as_printed(
    connect: Connect, world: World, capsys: pytest.CaptureFixture[str]
):
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    [block] = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "client.batches" in each]
    eager = connect()
    printed = block.replace("gpt-4", eager.account.alias).replace("sleep(1)", "sleep(0.1)")
    http = openai.DefaultHttpxClient(trust_env=False, verify=False)
    said: dict[str, Any] = {
        "client": openai.OpenAI(base_url=str(eager.base_url), api_key=eager.api_key, http_client=http)
    }
    await asyncio.to_thread(exec, printed, said)
    http.close()

    first, *answers = capsys.readouterr().out.splitlines()
    assert first.startswith("completed ")
    assert sorted(answers) == ["fr Paris", "it Rome"]
    await lines_of(eager, world, said["batch"].output_file_id)


async def test_files_are_listed_read_and_deleted(client: Eager):
    file = await uploaded(client, [line(client, "only", "capital of France")])

    assert (await client.files.retrieve(file.id)).bytes == file.bytes
    assert file.id in {each.id async for each in client.files.list(purpose="batch", limit=2)}
    assert json.loads((await client.files.content(file.id)).text)["custom_id"] == "only"
    gone = await client.files.delete(file.id)
    assert (gone.id, gone.object, gone.deleted) == (file.id, "file", True)
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(file.id)
    with pytest.raises(openai.BadRequestError) as failure:
        await client.files.create(file=b"{}", purpose="fine-tune")
    assert failure.value.param == "purpose"


async def test_batches_are_listed_newest_first_over_their_pages(client: Eager, world: World):
    made = [(await started(client, [line(client, "one", f"capital of {land}")])).id for land in ("France", "Italy")]

    listed = []
    async for batch in client.batches.list(limit=1):
        listed.append(batch.id)
        if made[0] in listed:
            break
    assert listed == made[::-1]
    for batch_id in made:
        await lines_of(client, world, (await ended(client, batch_id)).output_file_id)


async def test_a_batch_is_cancelled_in_mid_run(client: Eager, world: World, provider: DemoProvider):
    held, tag = f"held {uuid4().hex}", uuid4().hex
    await provider.hold(held)
    batch = await started(client, [line(client, f"{tag} {n}", f"{held} {n}") for n in range(4)])
    await provider.asked(held)

    assert (await client.batches.cancel(batch.id)).status in {"cancelling", "cancelled"}
    batch = await ended(client, batch.id)
    await provider.release()

    assert batch.status == "cancelled"
    assert (await client.files.content(batch.output_file_id)).text == ""
    failed = await lines_of(client, world, batch.error_file_id)
    assert {each["error"]["code"] for each in failed.values()} == {"batch_cancelled"}
    assert len(failed) == 4


async def test_a_bad_file_is_refused_line_by_line(client: Eager):
    twice = [line(client, "same", "one"), line(client, "same", "two"), line(client, "s", "three", stream=True)]
    batch = await started(client, twice)

    assert batch.status == "failed"
    assert batch.failed_at
    faults = [(fault.line, fault.code, fault.param) for fault in batch.errors.data]
    assert faults == [(2, "duplicate_custom_id", "custom_id"), (3, "stream_not_supported", "body.stream")]
    with pytest.raises(openai.BadRequestError) as failure:
        await client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    assert failure.value.param == "input_file_id"
    with pytest.raises(openai.NotFoundError):
        await client.batches.retrieve("batch_none")
