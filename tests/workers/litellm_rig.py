"""What the tests of the litellm provider share: the demo provider's control door, claimed calls, expected failures."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from shared.calls import Claimed
from shared.sealer import Sealer
from shared.settings import Settings
from workers.provider import Answer, Provider, ProviderError

LIMIT_S = 20
CANARY = "canary-9f3b71d2c4-key"
SEALER = Sealer(base64.b64encode(b"e" * 32).decode())


class Demo:
    """The demo provider's control door."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self.client = client
        self.base = f"{url}/v1"

    async def script(self, *steps: dict[str, Any], **fields: Any) -> None:
        (await self.client.post("/_control/script", json={"steps": steps, **fields})).raise_for_status()

    async def requests(self, **which: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.client.get("/_control/requests", params=which)).json()["requests"]
        return found

    async def reached(self, **which: Any) -> bool:
        answer = await self.client.get("/_control/wait", params={"timeout": LIMIT_S, **which})
        return bool(answer.raise_for_status().json()["reached"])


def make(library: Any, provider_keys: dict[str, str] | None = None, **settings: Any) -> Any:
    return library.LitellmProvider(Settings(**settings), SEALER, provider_keys or {})


def a_call(
    base: str | None, *, key: str | None = CANARY, question: str = "Capital of France?", **request: Any
) -> Claimed:
    sealed = None if key is None else SEALER.seal(key, purpose="model_aliases.api_key:fast")
    messages = [{"role": "user", "content": question}]
    return Claimed(
        id=uuid4(), job_id=uuid4(), team_id="t1", number=1, model="fast", candidates=["fast"], candidate=0,
        candidate_attempts=0, failures=0, estimated_prompt_tokens=77, estimated_output_tokens=500,
        created_at=datetime.now(UTC),
        deadline_in_s=3600, request={"messages": messages, **request}, markup_percentage=0, alias="fast",
        litellm_model="openai/gpt-4", provider="openai", api_base=base, api_key_sealed=sealed,
        input_nanousd_per_mtok=None, output_nanousd_per_mtok=None, cached_input_nanousd_per_mtok=None,
        on_unknown="retry",
    )  # fmt: skip


def a_completion(base: str | None, prompt: Any, *, model: str = "openai/instruct-1", **request: Any) -> Claimed:
    given = {"prompt": prompt, **request}
    return replace(a_call(base), endpoint="completion", request=given, litellm_model=model)


def an_embedding(
    base: str | None, input_: Any, *, model: str = "openai/text-embedding-3-small", **more: Any
) -> Claimed:
    return replace(a_call(base), endpoint="embedding", request={"input": input_, **more}, litellm_model=model)


def from_anthropic(call: Claimed) -> Claimed:
    return replace(call, litellm_model="anthropic/claude-sonnet-4-5", provider="anthropic")


class Heard:
    """A sink that keeps what it is told. first: waits that long at its first piece, as for the record in Postgres."""

    def __init__(self, first_s: float = 0) -> None:
        self.pieces: list[dict[str, Any]] = []
        self.first_s = first_s
        self.spoken = asyncio.Event()

    async def send(self, choices: Sequence[dict[str, Any]]) -> None:
        if not self.pieces:
            await asyncio.sleep(self.first_s)
        self.pieces.extend(choices)
        self.spoken.set()

    def of(self, index: int) -> list[dict[str, Any]]:
        """What choice `index` said, a delta or a text per piece."""
        return [piece.get("delta", piece) for piece in self.pieces if piece["index"] == index]

    def text(self, index: int = 0, name: str = "content") -> str:
        return "".join(piece.get(name) or "" for piece in self.of(index))


async def streamed(provider: Provider, call: Claimed) -> tuple[Answer, Heard]:
    heard = Heard()
    return await provider.complete(replace(call, stream=True), timeout_s=LIMIT_S, sink=heard), heard


async def failure(
    provider: Provider, call: Claimed, timeout_s: float = LIMIT_S, sink: Heard | None = None
) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.complete(call, timeout_s=timeout_s, sink=sink)
    return caught.value


def choices(answer: Answer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer.response)["choices"]
    return found


def chunk(delta: dict[str, Any] | None = None, index: int = 0, finish: str | None = None, **more: Any) -> bytes:
    """A frame of a chat stream; without a delta one without choices."""
    said = [] if delta is None else [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return frame({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": said, **more})


def frame(content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@contextlib.asynccontextmanager
async def raw_server(
    *frames: bytes, content_type: str = "text/event-stream", pause_s: float = 0
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers every request with these bytes; its URL and the requests it saw."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        seen.append(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nconnection: close\r\n\r\n" % content_type.encode())
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            for one in frames:
                writer.write(one)
                await writer.drain()
                await asyncio.sleep(pause_s)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen


def error_body(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def status(status: int, **more: Any) -> dict[str, Any]:
    return {"fault": "status", "status": status, **more}
