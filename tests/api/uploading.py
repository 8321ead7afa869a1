"""A team's way to its files."""

from typing import Any

import httpx

from tests.scene import Team

FILES = "/v1/files"
LINES = b'{"custom_id":"a"}\n{"custom_id":"b"}\n'


def own(team: Team, **headers: str) -> dict[str, str]:
    """The team's key, and headers whose names are written with underscores."""
    return {"Authorization": f"Bearer {team.key}", **{name.replace("_", "-"): text for name, text in headers.items()}}


async def ask(team: Team, method: str, path: str = "", **more: Any) -> httpx.Response:
    """A request about files; names in capitals are headers."""
    headers = own(team, **{name: more.pop(name) for name in list(more) if name[0].isupper()})
    return await team.scene.client.request(method, FILES + path, headers=headers, **more)


async def upload(
    team: Team, data: bytes = LINES, *, name: str = "in.jsonl", key: str | None = None, **fields: str
) -> httpx.Response:
    """An upload as clients send it: the fields before the file."""
    headers = own(team) if key is None else own(team, Idempotency_Key=key)
    said = {"purpose": "batch", **fields}
    return await team.scene.client.post(FILES, headers=headers, data=said, files={"file": (name, data)})


async def uploaded(team: Team, data: bytes = LINES, **fields: str) -> dict[str, Any]:
    """A file object."""
    made = await upload(team, data, **fields)
    assert made.status_code == 200, made.text
    found: dict[str, Any] = made.json()
    return found


def part(name: str, text: str, more: str = "") -> str:
    """One part of a body whose boundary is XX."""
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{text}\r\n'


FILE = part("file", "{}", '; filename="in.jsonl"')
PURPOSE = part("purpose", "batch")
END = "--XX--\r\n"
FORM = {"Content-Type": "multipart/form-data; boundary=XX"}


async def post(team: Team, body: str | bytes, **headers: str) -> httpx.Response:
    """A multipart body of one's own."""
    return await team.scene.client.post(FILES, content=body, headers={**FORM, **own(team, **headers)})


async def rows(team: Team) -> list[Any]:
    """What the team has in the table of files, whole or not."""
    return await team.scene.rows("select * from files where team_id = :id order by id", id=team.id)
