"""A team of a stack: its client, and what a client does with it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.hooks import Hooks

FINAL = ("completed", "failed", "cancelled")
ANSWERS = httpx.codes.OK, httpx.codes.ACCEPTED


@dataclass(frozen=True)
class Call:
    """An accepted call."""

    job_id: str
    call_id: str

    @property
    def path(self) -> str:
        """Where it is read."""
        return f"/api/jobs/{self.job_id}/calls/{self.call_id}"


@dataclass(frozen=True, kw_only=True)
class Team:
    """Its own organization, group and aliases; `model` is what the provider sees, a good `match` for scripts.

    aliases: the one that calls ask for, then its fallbacks; models: what the provider is asked for each; sql: rows of a
    query on the stack's database.
    """

    client: httpx.AsyncClient
    admin: httpx.AsyncClient
    sql: Callable[..., Awaitable[list[Any]]]
    team_id: str
    key: str
    aliases: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def alias(self) -> str:
        """The model that calls ask for."""
        return self.aliases[0]

    @property
    def model(self) -> str:
        """What the provider is asked for."""
        return self.models[0]

    def call(self, text: str, **fields: Any) -> dict[str, Any]:
        """The body of a call."""
        return {"model": self.alias, "messages": [{"role": "user", "content": text}], **fields}

    async def job(self, *texts: str, **fields: Any) -> dict[str, Any]:
        """A new job, with a call for each text."""
        body = {"team_id": self.team_id, "job_type": "test", **fields}
        if texts:
            body["calls"] = [self.call(text) for text in texts]
        return accepted(await self.client.post("/api/jobs/create", json=body))

    async def submit(self, text: str, *, job_id: str | None = None, **fields: Any) -> Call:
        """An accepted call: in this job, else in a new one that ends with it."""
        if job_id is None:
            body = {"team_id": self.team_id, "job_type": "test", "calls": [self.call(text, **fields)]}
            job = accepted(await self.client.post("/api/jobs/create", json=body))
            return Call(job["job_id"], job["calls"][0]["call_id"])
        found = accepted(await self.ask(job_id, text, headers={"Prefer": "respond-async"}, **fields))
        return Call(job_id, found["call_id"])

    async def ask(
        self, job_id: str, text: str, *, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """POST …/llm-call as it is, waiting unless the headers say otherwise."""
        path = f"/api/jobs/{job_id}/llm-call"
        return await self.client.post(path, json=self.call(text, **fields), headers=headers)

    async def read(self, call: Call) -> dict[str, Any]:
        """The call object as it stands, seen by an admin: with its attempts."""
        return accepted(await self.admin.get(call.path))

    async def result(self, call: Call, timeout_s: float = 30) -> dict[str, Any]:
        """The call object once it is final, with its attempts; 503 and lost connections in between are waited out."""
        await self._final(call.path, timeout_s)
        return await self.read(call)

    async def ended(self, job_id: str, timeout_s: float = 30) -> dict[str, Any]:
        """The job object once it is final."""
        return await self._final(f"/api/jobs/{job_id}", timeout_s)

    async def complete(self, job_id: str, status: str = "completed", **fields: Any) -> httpx.Response:
        """POST …/complete as it is."""
        return await self.client.post(f"/api/jobs/{job_id}/complete", json={"status": status, **fields})

    async def balance(self) -> dict[str, Any]:
        """The balance object."""
        return accepted(await self.client.get("/api/credits/balance"))

    async def charges(self) -> list[int]:
        """Credits of every deduction so far, oldest first, as positive numbers."""
        rows = await self.sql(
            "select -amount as paid from credit_entries where team_id = %s and kind = 'deduction' order by created_at",
            self.team_id,
        )
        return [row.paid for row in rows]

    async def events(self, job_id: str) -> list[str]:
        """The types of a job's events, in their order."""
        rows = await self.sql("select type from events where job_id = %s order by sequence", job_id)
        return [row.type for row in rows]

    async def register(self, hooks: Hooks, events: list[str]) -> None:
        """Register a receiver as this team's webhook endpoint."""
        body = {"team_id": self.team_id, "webhook_url": hooks.url, "events": events}
        hooks.secret = accepted(await self.client.post("/api/webhooks/register", json=body))["secret"]

    async def _final(self, path: str, timeout_s: float) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    answer = await self.client.get(path, params={"wait": 5})
                except httpx.TransportError:
                    await asyncio.sleep(0.2)
                    continue
                if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                    await asyncio.sleep(0.2)
                elif (found := accepted(answer))["status"] in FINAL:
                    return found


def accepted(answer: httpx.Response) -> dict[str, Any]:
    """The object of a 200 or 202."""
    assert answer.status_code in ANSWERS, f"{answer.status_code} {answer.text}"
    found: dict[str, Any] = answer.json()
    return found
