"""Streams that are open while something beneath them ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import orjson

from tests.stack import Stack
from tests.team import Team
from tests.waiting import until

STEP = {"fault": "hold", "chunks": 3}


@dataclass
class Heard:
    """The frames of a stream as they come."""

    answer: httpx.Response
    frames: list[str] = field(default_factory=list)

    async def read(self) -> None:
        text = ""
        async for part in self.answer.aiter_text():
            *whole, text = (text + part).split("\n\n")
            self.frames += whole

    @property
    def ids(self) -> list[int]:
        return [int(frame.split("\n")[0][4:]) for frame in self.frames if frame.startswith("id: ")]

    @property
    def words(self) -> str:
        chunks = [orjson.loads(frame.split("data: ")[1]) for frame in self.frames if frame.startswith("id: ")]
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)

    async def has_begun(self) -> bool:
        return bool(self.ids)


@asynccontextmanager
async def stream(team: Team, method: str, path: str, **options: object) -> AsyncIterator[Heard]:
    async with team.client.stream(method, path, **options) as answer:  # type: ignore[arg-type]
        heard = Heard(answer)
        reading = asyncio.create_task(heard.read())
        yield heard
        await asyncio.wait_for(reading, 20)


async def begun(heard: Heard) -> None:
    await until(heard.has_begun, "the first chunk")


async def test_an_api_that_ends_says_so_and_the_next_one_goes_on_from_there(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.script(STEP, match=team.model)
    job = await team.job()
    path = f"/api/jobs/{job['job_id']}/llm-call-stream"
    async with stream(team, "POST", path, json=team.call("What is the capital of France?")) as cut:
        await begun(cut)
        stack.api.terminate()
    assert '"type":"service_unavailable","code":503' in cut.frames[-2]
    assert cut.frames[-1] == "data: [DONE]"
    assert stack.api.process is not None
    await asyncio.to_thread(stack.api.process.wait, 10)

    stack.api.start()
    await stack.ready()
    again = f"/api/jobs/{job['job_id']}/calls/{cut.answer.headers['X-Call-Id']}/stream"
    async with stream(team, "GET", again, headers={"Last-Event-ID": str(cut.ids[-1])}) as rest:
        await stack.provider.release()
    assert cut.ids + rest.ids == list(range(1, len(cut.ids + rest.ids) + 1))
    assert cut.words + rest.words == "Paris"
    assert rest.frames[-1] == "data: [DONE]"


async def test_a_stream_goes_on_without_a_gap_when_redis_is_emptied(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.script({**STEP, "stream": {"chars": 1}}, match=team.model)
    job = await team.job()
    path = f"/api/jobs/{job['job_id']}/llm-call-stream"
    async with stream(team, "POST", path, json=team.call("What is the capital of France?")) as heard:
        await begun(heard)
        stack.flush_redis()
        await stack.provider.release()
    assert heard.words == "Paris"
    assert heard.ids == list(range(1, len(heard.ids) + 1))
    assert heard.frames[-1] == "data: [DONE]"
