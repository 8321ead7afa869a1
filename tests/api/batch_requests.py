"""A team's way to batches, and the worker that tends them, in this process."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import orjson

from shared import ids
from tests.scene import HELLO, Scene, Team
from workers.batches import Batches

CHAT = "/v1/chat/completions"
ASKED = {"endpoint": CHAT, "completion_window": "24h"}
FINAL = ("completed", "failed", "expired", "cancelled")


@asynccontextmanager
async def tended(scene: Scene) -> AsyncIterator[Batches]:
    """Somebody hears the bells of batches, and the lines that are dispatched are run."""
    batches = Batches(scene.rt, "test-unit")
    scene.live, scene.tend = True, batches.take
    try:
        yield batches
    finally:
        scene.tend = None
        await batches.drain(5)


def item(team: Team, custom_id: str, **body: Any) -> dict[str, Any]:
    """A line as a JSON body brings it."""
    return {"custom_id": custom_id, "body": {"model": team.models[0], "messages": HELLO, "max_tokens": 50, **body}}


def items(team: Team, *names: str) -> list[dict[str, Any]]:
    return [item(team, name) for name in names]


def ndjson(lines: Sequence[dict[str, Any]]) -> bytes:
    """The same as lines of a file."""
    given = {"method": "POST", "url": CHAT}
    return b"".join(orjson.dumps({**given, **line}) + b"\n" for line in lines)


async def send(
    team: Team, method: str, path: str = "", body: Any = None, *, content: bytes | None = None, **headers: str
) -> httpx.Response:
    """A request to /v1/batches and what is below it."""
    own = {"Authorization": f"Bearer {team.key}", **{name.replace("_", "-"): v for name, v in headers.items()}}
    return await team.scene.client.request(method, f"/v1/batches{path}", json=body, content=content, headers=own)


async def create(team: Team, *names: str, query: str = "", **fields: Any) -> httpx.Response:
    """A batch of these lines; names in capitals are headers."""
    headers = {name: value for name, value in fields.items() if name[0].isupper()}
    body = {**ASKED, **({"requests": items(team, *names)} if names else {})}
    body |= {name: value for name, value in fields.items() if not name[0].isupper()}
    return await send(team, "POST", query, body, **headers)


def shown(found: httpx.Response) -> dict[str, Any]:
    """The batch that was answered; its counts add up."""
    assert found.status_code == 200, found.text
    batch: dict[str, Any] = found.json()
    counts = dict(batch["request_counts"])
    assert counts.pop("total") == sum(counts.values()), counts
    assert min(counts.values()) >= 0
    return batch


async def batch_of(team: Team, *names: str, **fields: Any) -> dict[str, Any]:
    """A new batch, checked."""
    return shown(await create(team, *names, **fields))


async def read(team: Team, batch_id: str, query: str = "") -> dict[str, Any]:
    return shown(await send(team, "GET", f"/{batch_id}{query}"))


async def run(team: Team, batch: dict[str, Any], *names: str) -> None:
    """Let a worker have these of its waiting lines, or all, as if they were dispatched; returns when they have run."""
    rows = await team.scene.rows(
        "select id, custom_id from calls where job_id = :id and state = 'pending' order by position", id=uuid_of(batch)
    )
    await team.scene.work([row.id for row in rows if not names or row.custom_id in names])


async def ended(team: Team, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch once its lines have run and its files are there."""
    await run(team, batch)
    over = await read(team, batch["id"], "?wait=10")
    assert over["status"] in FINAL
    return over


def uuid_of(batch: dict[str, Any]) -> UUID:
    found = ids.parse_batch(batch["id"])
    assert found is not None
    return found
