"""An admin's and a team's way into the app, without a socket, and names nobody else uses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx

from api import app, http
from shared.runtime import Runtime
from tests.api import conform

ALIASES = ("/model-aliases", "/models")

ROUTES: tuple[tuple[str, str, http.Endpoint], ...] = tuple(app.API)


class Api:
    """Requests to the app of one test."""

    def __init__(self, client: httpx.AsyncClient, admin_key: str) -> None:
        self.client = client
        self.admin = {"X-Admin-Key": admin_key}

    async def send(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        """As the team of this virtual key, else as the admin."""
        headers = {"Authorization": f"Bearer {key}"} if key else self.admin
        return await self.client.request(method, f"/api{path}", json=body, headers=headers)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        return await self.send("POST", path, body, key=key)

    async def put(self, path: str, body: Any = None) -> httpx.Response:
        return await self.send("PUT", path, body)

    async def get(self, path: str, *, key: str | None = None) -> httpx.Response:
        return await self.send("GET", path, key=key)

    async def organization(self, **fields: Any) -> dict[str, Any]:
        """A new one, without a team unless asked for."""
        body = {"organization_id": unique("org"), "name": "Acme", "create_default_team": False, **fields}
        return made(await self.post("/organizations/create", body))

    async def team(self, **fields: Any) -> dict[str, Any]:
        """A new one in an organization of its own unless given."""
        organization_id = fields.pop("organization_id", None) or (await self.organization())["organization_id"]
        body = {"organization_id": organization_id, "team_id": unique("team"), **fields}
        return made(await self.post("/teams/create", body))

    async def alias(self, **fields: Any) -> dict[str, Any]:
        body = {"alias": unique("alias"), "litellm_model": "openai/gpt-4o", **fields}
        return made(await self.post("/model-aliases/create", body))

    async def group(self, **fields: Any) -> dict[str, Any]:
        return made(await self.post("/model-access-groups/create", {"group_name": unique("group"), **fields}))


@asynccontextmanager
async def opened(runtime: Runtime) -> AsyncIterator[Api]:
    """The app on this runtime."""
    transport = httpx.ASGITransport(app.create_app(runtime, api=ROUTES))
    hooks = {"response": [conform.check]}
    async with httpx.AsyncClient(transport=transport, base_url="http://waybill", event_hooks=hooks) as client:
        yield Api(client, runtime.settings.admin_key.get_secret_value())


def unique(word: str) -> str:
    """An id that no other test has."""
    return f"{word}-{uuid4().hex[:12]}"


def made(answer: httpx.Response) -> dict[str, Any]:
    """The object of a successful answer."""
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(answer: httpx.Response) -> tuple[int, Any]:
    """Status and detail of a refused request."""
    return answer.status_code, answer.json()["detail"]


def wrong_place(answer: httpx.Response) -> list[Any]:
    """Where a 422 says the mistake is."""
    assert answer.status_code == 422, answer.text
    place: list[Any] = answer.json()["detail"][0]["loc"]
    return place
