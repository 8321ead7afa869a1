"""Replays as a client asks for them, and what they made."""

from typing import Any
from uuid import UUID

from shared import ids
from shared.events import Event
from tests.api.admin import made
from tests.scene import Scene, Team
from workers.replays import advance

FAST = {"id_mode": "same", "rate_per_s": 1000}
"""So fast that one step makes all deliveries."""

SINCE_EVER = "2020-01-01T00:00:00Z"


def hook_path(endpoint: UUID, deed: str = "replay") -> str:
    return f"/webhooks/{ids.prefixed('whe', endpoint)}/{deed}"


def evt(event: Event) -> str:
    return ids.prefixed("evt", event.id)


async def replay(team: Team, endpoint: UUID, **fields: Any) -> dict[str, Any]:
    """A replay that was started, one step on."""
    answer = await team.post(hook_path(endpoint), {**FAST, **fields})
    assert answer.status_code == 202, answer.text
    await advance(team.scene.rt)
    started: dict[str, Any] = answer.json()
    return started


async def read(team: Team, started: dict[str, Any]) -> dict[str, Any]:
    return made(await team.get(f"/webhooks/replays/{started['replay_id']}"))


async def replayed(scene: Scene, endpoint: UUID) -> list[UUID]:
    """The events of which replays made deliveries for this endpoint, in the order of the log."""
    sql = """select e.id from deliveries d join events e on e.id = d.event_id
              where d.endpoint_id = :id and d.replay_id is not null order by e.seq"""
    return [row.id for row in await scene.rows(sql, id=endpoint)]


async def states_of(scene: Scene, event: Event) -> list[tuple[str, str | None]]:
    sql = "select state, last_error from deliveries where event_id = :id order by replay_id nulls first"
    return [tuple(row) for row in await scene.rows(sql, id=event.id)]


def of(*events: Event) -> list[UUID]:
    return [event.id for event in events]
