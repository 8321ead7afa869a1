"""A team's way into the gateway, and what its answers say."""

from typing import Any

import httpx
import orjson

from shared.attempt_reports import Usage
from tests.scene import HELLO, TOKENS, Team
from workers.provider import Answer

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


async def ask(team: Team, path: str = CHAT, *, key: str | None = None, **fields: Any) -> httpx.Response:
    """A request for the team's model; names in capitals are headers."""
    headers = {name.replace("_", "-"): value for name, value in fields.items() if name[0].isupper()}
    body = {"model": team.models[0], **({"messages": HELLO} if path.endswith(CHAT) else {})}
    body |= {name: value for name, value in fields.items() if not name[0].isupper()}
    own = {"Authorization": f"Bearer {key or team.key}", **headers}
    return await team.scene.client.post(path, json=body, headers=own)


def problem(found: httpx.Response) -> tuple[int, str, str | None, int | str]:
    """Status, type, param and code of an error."""
    error = found.json()["error"]
    assert list(error) == ["message", "type", "param", "code", "provider"]
    return found.status_code, error["type"], error["param"], error["code"]


def said(found: httpx.Response) -> str:
    """The message of an error."""
    message: str = found.json()["error"]["message"]
    return message


def frames(found: httpx.Response) -> list[Any]:
    """The data of a stream's frames; the last is `[DONE]`."""
    assert found.status_code == 200, found.text
    assert found.headers["content-type"].startswith("text/event-stream")
    data = [line.removeprefix("data: ") for line in found.text.split("\n") if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [orjson.loads(one) for one in data[:-1]]


def stored(response: dict[str, Any], usage: Usage = TOKENS) -> Answer:
    """A provider's answer with this stored form."""
    finish = next((choice["finish_reason"] for choice in response.get("choices", ())), None)
    return Answer(response=orjson.dumps(response).decode(), finish_reason=finish, usage=usage)


async def only_call(team: Team) -> Any:
    """The row of the one call that the team made."""
    return await team.scene.row("select * from calls where team_id = :id", id=team.id)
