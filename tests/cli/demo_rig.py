"""What the tests of the demo provider share: a process of their own, questions, scripts, its log."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
LIMIT_S = 20
USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@contextlib.contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A demo provider of its own and the URL it prints."""
    command = [sys.executable, "-m", "cli.demo_provider", "--port", "0", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[-1].removesuffix("/v1")
        finally:
            process.kill()


def a_question(question: str = "Capital of France?", **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4", "messages": [{"role": "user", "content": question}], **fields}


async def ask(provider: httpx.AsyncClient, question: str = "Capital of France?", **fields: Any) -> httpx.Response:
    return await provider.post("/v1/chat/completions", json=a_question(question, **fields))


async def chunks(provider: httpx.AsyncClient, question: str = "Capital of France?", **fields: Any) -> list[Any]:
    """The chunks of a stream with usage, without the [DONE] that ends it."""
    *found, done = events(await ask(provider, question, **USAGE, **fields))
    assert done == "[DONE]"
    return found


async def script(provider: httpx.AsyncClient, *steps: dict[str, Any], **fields: Any) -> None:
    (await provider.post("/_control/script", json={"steps": steps, **fields})).raise_for_status()


async def logged(provider: httpx.AsyncClient, **which: Any) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = (await provider.get("/_control/requests", params=which)).json()["requests"]
    return requests


async def reached(provider: httpx.AsyncClient, **which: Any) -> bool:
    answer = await provider.get("/_control/wait", params={"timeout": LIMIT_S, **which})
    return bool(answer.raise_for_status().json()["reached"])


def events(answer: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def streamed_text(chunks: list[Any]) -> str:
    return "".join(c["delta"].get("content") or "" for chunk in chunks if chunk != "[DONE]" for c in chunk["choices"])


def told(found: list[Any], name: str, index: int = 0) -> list[Any]:
    """What the deltas of one choice say under this name, one after the other."""
    deltas = [one["delta"] for chunk in found for one in chunk["choices"] if one["index"] == index]
    return [delta[name] for delta in deltas if delta.get(name)]
