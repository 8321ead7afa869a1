"""A client that reads a stream while a test breaks something: the frames as they came, and how it ended."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from tests.team import Call, Team
from tests.waiting import until

DONE = "[DONE]"


@dataclass
class Following:
    """One response. frames: every event's data, parsed, without `[DONE]`; numbers: their ids, in the same order."""

    response: httpx.Response
    frames: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    done: bool = False
    cut: bool = False
    """The connection broke."""
    over: bool = False

    @property
    def call(self) -> Call:
        """Whose stream it is."""
        headers = self.response.headers
        job_id = headers["X-Job-Id"] if "X-Job-Id" in headers else self.response.url.path.split("/")[3]
        return Call(job_id, headers["X-Call-Id"])

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The frames that are no error."""
        return [frame for frame in self.frames if "error" not in frame]

    @property
    def text(self) -> str:
        """What choice 0 has said so far."""
        return said(self.chunks)

    @property
    def finishes(self) -> list[str]:
        """Every finish_reason."""
        return [c["finish_reason"] for frame in self.chunks for c in frame["choices"] if c["finish_reason"]]

    @property
    def error(self) -> dict[str, Any] | None:
        """The error frame, which is the last."""
        found: dict[str, Any] | None = self.frames[-1].get("error") if self.frames else None
        return found

    async def has(self, count: int) -> None:
        """Wait until so many chunks came."""

        async def enough() -> bool:
            assert not self.over, f"the stream ended after {len(self.frames)} frames: {self.frames[-1:]}"
            return len(self.chunks) >= count

        await until(enough, f"{count} chunks")

    async def end(self, timeout_s: float = 20) -> None:
        """Wait until the response is over, and check what is true of all: no gap, no repeat, a proper end."""

        async def ended() -> bool:
            return self.over

        await until(ended, "the stream ends", timeout_s)
        if self.numbers:
            first = self.numbers[0]
            assert self.numbers == list(range(first, first + len(self.numbers))), "a gap, or a repeat"
        assert self.done or self.cut, "a clean end without [DONE]"

    async def ended_clean(self, text: str) -> None:
        """Wait for the whole answer."""
        await self.end()
        assert (self.text, self.finishes, self.error, self.cut) == (text, ["stop"], None, False)

    async def broke_off(self, code: str) -> None:
        """Wait for an error frame after some chunks, without a finish."""
        await self.end()
        assert self.error is not None, self.frames[-1:]
        assert (self.error["code"], self.finishes, self.done) == (code, [], True)

    async def read(self) -> None:
        """Read to the end."""
        try:
            number = None
            async for line in self.response.aiter_lines():
                if line.startswith("id: "):
                    number = int(line[4:])
                elif line == f"data: {DONE}":
                    self.done = True
                elif line.startswith("data: "):
                    assert not self.done, "a frame after [DONE]"
                    self.frames.append(orjson.loads(line[6:]))
                    if number is not None:
                        self.numbers.append(number)
                    number = None
        except httpx.TransportError:
            self.cut = True
        finally:
            self.over = True


def said(chunks: Sequence[dict[str, Any]]) -> str:
    """The words of choice 0 in these chunks."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == 0]
    return "".join(choice["delta"].get("content", "") for choice in choices)


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, method: str, path: str, *, status: int = 200, **request: Any
) -> AsyncIterator[Following]:
    """Send the request and read its stream in the background."""
    async with client.stream(method, path, **request) as response:
        if response.status_code != status:
            await response.aread()
        assert response.status_code == status, response.text
        found = Following(response)
        reading = asyncio.create_task(found.read())
        try:
            yield found
        finally:
            reading.cancel()
            await asyncio.wait({reading})


def streamed(team: Team, text: str, **fields: Any) -> Any:
    """A new job with one streamed call."""
    body = {"team_id": team.team_id, "job_type": "test", **team.call(text, **fields)}
    return following(team.client, "POST", "/api/jobs/create-and-call-stream", json=body)


async def to_the_end(team: Team, text: str) -> Following:
    """The same, read until it is over."""
    async with streamed(team, text) as stream:
        await stream.end()
    return stream


def resumed(client: httpx.AsyncClient, call: Call, after: int | None = None) -> Any:
    """The stream of a call from after this chunk on."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    return following(client, "GET", f"{call.path}/stream", headers=headers)
