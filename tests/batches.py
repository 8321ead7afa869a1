"""Batches of a stack's team: made of lines, followed while they run, read to the last line of their files."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import httpx
import orjson

from tests.stack import Stack
from tests.team import Team, accepted
from tests.waiting import until

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
FINAL = ("completed", "failed", "expired", "cancelled")
COUNTS = ("completed", "failed", "pending", "in_progress", "cancelled", "expired")

Line = dict[str, Any]


def line(team: Team, custom_id: str, text: str, *, model: str | None = None) -> Line:
    """A chat for one request."""
    body = {"model": model or team.alias, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


async def upload(team: Team, lines: Sequence[Line]) -> str:
    """The id of a file with these lines."""
    data = b"".join(orjson.dumps(each) + b"\n" for each in lines)
    sent = await team.client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", data)})
    file_id: str = accepted(sent)["id"]
    return file_id


async def submit(team: Team, lines: Sequence[Line], **fields: Any) -> dict[str, Any]:
    """The batch of a file with these lines, as its creation answered."""
    body = {"input_file_id": await upload(team, lines), "endpoint": CHAT, "completion_window": "24h", **fields}
    return accepted(await team.client.post("/v1/batches", json=body))


async def read(team: Team, batch_id: str) -> dict[str, Any]:
    """The batch object as it stands; its counts add up."""
    found = accepted(await team.client.get(f"/v1/batches/{batch_id}"))
    counts = found["request_counts"]
    assert sum(counts[name] for name in COUNTS) == counts["total"], counts
    return found


async def ended(team: Team, batch_id: str, timeout_s: float = 30) -> dict[str, Any]:
    """The batch object once it is final; lost connections and 503 in between are waited out."""

    async def final() -> dict[str, Any] | None:
        try:
            answer = await team.client.get(f"/v1/batches/{batch_id}", params={"wait": 5})
        except httpx.TransportError:
            return None
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return None
        found = accepted(answer)
        return found if found["status"] in FINAL else None

    found = await until(final, f"the end of {batch_id}", timeout_s)
    assert found is not None
    return found


async def lines_of(team: Team, file_id: str | None) -> dict[str, Line]:
    """The lines of a file by custom_id, each there once; none without a file."""
    if file_id is None:
        return {}
    answer = await team.client.get(f"/v1/files/{file_id}/content")
    assert answer.status_code == httpx.codes.OK, answer.text
    found = [orjson.loads(each) for each in answer.content.splitlines()]
    by_name = {each["custom_id"]: each for each in found}
    assert len(by_name) == len(found), "a custom_id is in one file twice"
    return by_name


async def files_of(team: Team, batch: Mapping[str, Any]) -> tuple[dict[str, Line], dict[str, Line]]:
    """Both files of a final batch, which agree with its counts."""
    counts = batch["request_counts"]
    output = await lines_of(team, batch["output_file_id"])
    errors = await lines_of(team, batch["error_file_id"])
    assert len(output) == counts["completed"]
    assert len(errors) == counts["failed"] + counts["expired"] + counts["cancelled"]
    assert not set(output) & set(errors), "a line both succeeded and failed"
    return output, errors


def said(found: Line) -> str:
    """What the model said in an output line."""
    text: str = found["response"]["body"]["choices"][0]["message"]["content"]
    return text


async def events_of(stack: Stack, batch_id: str) -> list[str]:
    """The types of the events of a batch, in their order."""
    rows = await stack.sql("select type from events where job_id = %s order by sequence", job_id(batch_id))
    return [row.type for row in rows]


def job_id(batch_id: str) -> str:
    """The job that a batch is."""
    return str(UUID(batch_id.removeprefix("batch_")))
