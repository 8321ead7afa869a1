"""What a provider may do wrong in a stream, at every place of it: one attempt, honest numbers, a clear end."""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

import httpx

from tests.crash.following import Following, streamed, to_the_end
from tests.invariants import verify
from tests.stack import Stack
from tests.team import Team

ASKED = "30 words"
"""An undisturbed stream of it: the role, 30 words, the finish, usage, [DONE]."""
SLOW_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault after so many events. code: how the call fails, None: it does not; attempts: how each of them ended."""

    fault: str
    chunks: int
    code: str | None = "stream_interrupted"
    attempts: tuple[str, ...] = ("unknown",)

    @property
    def name(self) -> str:
        return f"{self.fault} after {self.chunks}"

    @property
    def step(self) -> dict[str, Any]:
        return {"fault": self.fault, "chunks": self.chunks}


def again(fault: str, chunks: int) -> Case:
    """A fault before the first word: nobody has seen anything, the next attempt answers."""
    return Case(fault=fault, chunks=chunks, code=None, attempts=("unknown", "succeeded"))


def broken(fault: str, chunks: int) -> Case:
    """A fault after words were delivered: no second attempt."""
    return Case(fault=fault, chunks=chunks, code="provider_timeout" if fault == "stall" else "stream_interrupted")


NO_FINISH, NO_USAGE, NO_DONE = -3, -2, -1
FAULTS = ("cut", "reset", "stall", "bad_chunk", "stream_error")
CASES = (
    *(again(fault, place) for fault in FAULTS for place in (0, 1)),
    *(broken(fault, place) for fault in FAULTS for place in (2, 12, NO_FINISH)),
    Case(fault="no_finish", chunks=0),
)


async def test_a_broken_stream_is_one_attempt_with_honest_numbers(stack: Stack) -> None:
    team = await stack.team()
    for case in CASES:
        await stack.provider.script(case.step, match=f"{ASKED} {case.name}.")

    ended = await asyncio.gather(*(to_the_end(team, f"{ASKED} {case.name}.") for case in CASES))

    wrong = [problem for case, stream in zip(CASES, ended, strict=True) for problem in await told(team, case, stream)]
    assert not wrong, "\n".join(wrong)
    await verify(stack)


async def told(team: Team, case: Case, stream: Following) -> list[str]:
    """What the client, the call and its attempts say that they should not."""
    call = await team.result(stream.call)
    code = stream.error["code"] if stream.error else None
    words = len(stream.text.split())
    outcomes = tuple(attempt["outcome"] for attempt in call["attempts"])
    last = call["attempts"][-1]
    found = {
        "the client was told": (code, case.code),
        "the call says": (call["error"]["code"] if call["error"] else None, case.code),
        "finishes": (stream.finishes, [] if case.code else ["stop"]),
        "attempts": (outcomes, case.attempts),
        "usage source": (last["usage_source"], "estimated" if case.code else "provider"),
        "maybe billed": (last["maybe_billed"], case.code is not None),
        "completion tokens": (last["completion_tokens"] > 0, words > 0),
        "words": (words in (range(1, 31) if case.code else (30,)), True),
    }
    return [f"{case.name}: {what}: {got!r}, not {wanted!r}" for what, (got, wanted) in found.items() if got != wanted]


async def test_a_stream_cut_after_its_finish_has_said_all(stack: Stack) -> None:
    team = await stack.team()
    for place, text in ((NO_USAGE, "no usage"), (NO_DONE, "no done")):
        await stack.provider.script({"fault": "cut", "chunks": place}, match=f"{ASKED} {text}")

    guessed, told = await asyncio.gather(*(to_the_end(team, f"{ASKED} {text}") for text in ("no usage", "no done")))

    for stream, source in ((guessed, "estimated"), (told, "provider")):
        (attempt,) = (await team.result(stream.call))["attempts"]
        assert (attempt["outcome"], attempt["usage_source"]) == ("succeeded", source)
        assert stream.finishes == ["stop"]
    await verify(stack)


async def test_a_slow_provider_and_equal_chunks_are_no_fault(stack: Stack) -> None:
    team = await stack.team()
    same = "again "
    await stack.provider.script({"stream": {"every_s": SLOW_S}}, match=f"{ASKED} slowly")
    step = {"say": {"text": same, "times": 300}, "stream": {"chars": len(same)}}
    await stack.provider.script(step, match="the same over and over")

    async with streamed(team, f"{ASKED} slowly") as slow, streamed(team, "the same over and over") as same_again:
        await slow.end()
        await same_again.ended_clean(same * 300)

    assert len(slow.text.split()) == 30
    assert len(slow.chunks) > 30
    await verify(stack)


async def test_a_slow_reader_misses_nothing(stack: Stack) -> None:
    team = await stack.team()
    piece = "0123456789abcdef" * 256
    step = {"say": {"text": piece, "times": 1500}, "stream": {"chars": len(piece)}}
    await stack.provider.script(step, match=team.model)
    body = {"team_id": team.team_id, "job_type": "test", **team.call("a lot")}
    narrow = httpx.AsyncHTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)], verify=False)

    async with (
        httpx.AsyncClient(base_url=stack.api_url, headers=team.client.headers, transport=narrow) as client,
        client.stream("POST", "/api/jobs/create-and-call-stream", json=body) as response,
    ):
        stream = Following(response)
        assert (await team.result(stream.call))["status"] == "completed", "the call waits for no reader"
        await stream.read()
    await stream.ended_clean(piece * 1500)

    await verify(stack)
