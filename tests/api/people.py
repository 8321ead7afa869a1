"""Admin users of a test: each with an e-mail address of their own, and logged in from an address of their own."""

import itertools
from dataclasses import dataclass
from typing import Any

import httpx

from tests.api import conform
from tests.api.admin import made, unique
from tests.scene import Scene

PASSWORD = "correct horse battery"
_addresses = itertools.count(1)


def at_new_address(scene: Scene) -> httpx.AsyncClient:
    """A client whose failed logins count for nobody else."""
    n = next(_addresses)
    address = f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
    transport = httpx.ASGITransport(scene.app, client=(address, 1))
    hooks = {"response": [conform.check]}
    return httpx.AsyncClient(transport=transport, base_url="http://waybill", event_hooks=hooks)


@dataclass(frozen=True, kw_only=True)
class Person:
    """An admin user with a session."""

    client: httpx.AsyncClient
    id: str
    email: str
    token: str

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        own = {"Authorization": f"Bearer {self.token}", **{name.replace("_", "-"): v for name, v in headers.items()}}
        return await self.client.request(method, f"/api{path}", json=body, headers=own)

    async def get(self, path: str) -> httpx.Response:
        return await self.send("GET", path)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self.send("POST", path, body, **headers)

    async def put(self, path: str, body: Any = None) -> httpx.Response:
        return await self.send("PUT", path, body)

    async def again(self) -> "Person":
        """The same person with another session."""
        return await logged_in(self.client, self.email)


async def person(scene: Scene, role: str = "user", **fields: Any) -> Person:
    """A new one, made by the admin key."""
    body = {"email": f"{unique(role)}@acme.example", "display_name": "Ann", "password": PASSWORD, "role": role}
    user = made(await scene.api.post("/admin-users", {**body, **fields}))
    return await logged_in(at_new_address(scene), user["email"])


async def logged_in(client: httpx.AsyncClient, email: str, password: str = PASSWORD) -> Person:
    """Who logs in."""
    answer = made(await client.post("/api/admin-users/login", json={"email": email, "password": password}))
    return Person(client=client, id=answer["user"]["user_id"], email=email, token=answer["access_token"])
