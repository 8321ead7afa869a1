"""LiteLLM's key routes as a client of a test uses them."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

from shared.runtime import Runtime
from tests.api.admin import Api, made, opened

NOBODY_S = "sk-a-key-that-nobody-has"
UNKNOWN = (404, "Key not found in database", "not_found_error", "key", 404)
Refusal = tuple[int, str, str, str | None, int | str]


@dataclass(frozen=True)
class Keys:
    """Requests outside `/api`: as the admin, else with this key."""

    api: Api

    async def send(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> httpx.Response:
        own = {"Authorization": f"Bearer {key}"} if key else self.api.admin
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.api.client.request(method, path, json=body, headers={**own, **more})

    async def post(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> httpx.Response:
        return await self.send("POST", path, body, key=key, **headers)

    async def get(self, path: str, *, key: str | None = None, **query: Any) -> httpx.Response:
        return await self.send("GET", f"{path}?{urlencode(query)}" if query else path, key=key)

    async def generate(self, **fields: Any) -> dict[str, Any]:
        """A new key; in a new team unless one is named."""
        if "team_id" not in fields:
            fields["team_id"] = (await self.api.team())["team_id"]
        return made(await self.post("/key/generate", fields))

    async def info(self, key: str) -> dict[str, Any]:
        """What the admin reads of it."""
        info: dict[str, Any] = made(await self.send("GET", f"/key/info?key={key}"))["info"]
        return info


def refused(answer: httpx.Response) -> Refusal:
    """Status, message, type, param and code of an envelope."""
    error = answer.json()["error"]
    assert sorted(error) == ["code", "message", "param", "provider", "type"]
    assert error["provider"] is None
    return answer.status_code, error["message"], error["type"], error["param"], error["code"]


async def status_of(runtime: Runtime, key: str) -> tuple[int, Any]:
    """What a process that has not seen the key yet says of it: the status, and the code of a refusal."""
    async with opened(runtime) as fresh:
        answer = await Keys(fresh).get("/key/info", key=key)
        return answer.status_code, answer.json().get("error", {}).get("code")
