"""Three doors to one log: pushed, pulled and streamed events are the same, and nothing that ends loses one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from tests.stack import Stack
from tests.team import Team, accepted
from tests.waiting import until

WANTED = ["job.*", "call.completed"]


@dataclass
class Log:
    """What streams of the team's log told, frame by frame."""

    frames: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(frame.split("data: ")[1]) for frame in self.frames if "data: " in frame]

    async def read(self, answer: httpx.Response) -> None:
        text = ""
        async for part in answer.aiter_text():
            *whole, text = (text + part).split("\n\n")
            self.frames += whole

    async def has(self, count: int) -> None:
        async def there() -> bool:
            return len(self.events) >= count

        await until(there, f"{count} events on the stream")


@asynccontextmanager
async def streaming(team: Team, log: Log, *, ends: bool = False) -> AsyncIterator[None]:
    """Read the team's log from where this one is. ends: the server is to end it."""
    last = {"Last-Event-ID": log.events[-1]["id"]} if log.events else {}
    headers = {"Accept": "text/event-stream", **last}
    params = {"types": ",".join(WANTED)}
    async with team.client.stream("GET", "/api/events", headers=headers, params=params, timeout=60) as answer:
        assert answer.status_code == 200
        reading = asyncio.create_task(log.read(answer))
        yield
        if ends:
            await asyncio.wait_for(reading, 20)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def worked_on(team: Team, *texts: str) -> None:
    """A job with these calls has ended; a 503 is asked again, as a client does."""
    body = {"team_id": team.team_id, "job_type": "test", "calls": [team.call(text) for text in texts]}

    async def made() -> str | None:
        answer = await team.client.post("/api/jobs/create", json=body)
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else str(accepted(answer)["job_id"])

    await team.ended(str(await until(made, "the job is accepted")))


async def pulled(team: Team) -> list[dict[str, Any]]:
    """All pages, three events at a time."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 3, "types": ",".join(WANTED)}
    while True:
        page = accepted(await team.client.get("/api/events", params=query))
        found += page["events"]
        if not page["has_more"]:
            return found
        query["after"] = page["next_after"]


async def test_what_is_pushed_pulled_and_streamed_is_the_same_whatever_ends_meanwhile(stack: Stack) -> None:
    team, hooks, log = await stack.team(), await stack.receiver(), Log()
    await team.register(hooks, WANTED)
    async with streaming(team, log, ends=True):
        await team.ended((await team.job("one", "two"))["job_id"])
        await log.has(5)
        await stack.restart_postgres()
        await worked_on(team, "three", "four")
        await log.has(10)
        stack.api.terminate()
    assert log.frames[-1].startswith("retry: ")
    assert stack.api.process is not None
    await asyncio.to_thread(stack.api.process.wait, 10)
    stack.api.start()
    await stack.ready()

    job = (await team.job("five", "six"))["job_id"]
    async with streaming(team, log):
        await team.ended(job)
        await log.has(15)
    events = await pulled(team)
    await hooks.arrived(15)
    assert [event["id"] for event in log.events] == [event["id"] for event in events]
    assert log.events == events
    assert hooks.events() == {event["id"]: event for event in events}
