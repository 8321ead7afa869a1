"""Webhook endpoints as a client keeps them, and their rows."""

from typing import Any

from shared import ids
from shared.messages import Deliver
from tests.api.admin import made
from tests.scene import Scene, Team

URL = "http://127.0.0.1:9009/hook"

OTHER_URL = "http://127.0.0.1:9009/other"


async def register(team: Team, **fields: Any) -> dict[str, Any]:
    return made(await team.post("/webhooks", {"team_id": team.id, "webhook_url": URL, **fields}))


async def change(team: Team, hook: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return made(await team.send("PATCH", f"/webhooks/{hook['id']}", fields))


async def read(team: Team, hook: dict[str, Any]) -> dict[str, Any]:
    return made(await team.get(f"/webhooks/{hook['id']}"))


async def stored(scene: Scene, hook: dict[str, Any]) -> Any:
    return await scene.row("select * from webhook_endpoints where id = :id", id=ids.parse_prefixed("whe", hook["id"]))


async def set_columns(scene: Scene, hook: dict[str, Any], assignments: str) -> None:
    """Change an endpoint behind the api's back."""
    sql = f"update webhook_endpoints set {assignments} where id = :id returning 1"
    await scene.rows(sql, id=ids.parse_prefixed("whe", hook["id"]))


async def states(scene: Scene, hook: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    sql = "select event_type, state, last_error from deliveries where endpoint_id = :id order by id"
    return [tuple(row) for row in await scene.rows(sql, id=ids.parse_prefixed("whe", hook["id"]))]


async def event(team: Team) -> str:
    """A job that is completed, and so an event that an endpoint wants."""
    job = await team.job()
    assert (await team.complete(job["job_id"])).status_code == 200
    return str(job["job_id"])


async def open_circuit(scene: Scene, team: Team, hook: dict[str, Any]) -> None:
    """Its queue, after nine failures in a row."""
    sql = (
        "insert into delivery_queues (id, team_id, endpoint_id, open_until, open_s, failures_in_a_row) "
        "values (:id, :team, :id, now() + interval '1 hour', 900, 9) returning 1"
    )
    await scene.rows(sql, id=ids.parse_prefixed("whe", hook["id"]), team=team.id)


def rung(scene: Scene) -> set[Any]:
    return {id_ for message in scene.rung if isinstance(message, Deliver) for id_ in message.ids}
