"""A client of the app that reads an answer while it comes, as slowly as a test wants, and can hang up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from redis.asyncio import Redis
from starlette.types import Message

from shared import chunks, redis_keys
from shared.chunks import Chunks, End, Entry
from tests.api import conform
from tests.scene import Scene
from tests.waiting import until

PATIENCE_S = 10


@dataclass
class Listener:
    """What came so far. With `can_take` cleared nothing more is taken."""

    scene: Scene
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answered: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""
    writes: list[bytes] = field(default_factory=list)
    is_over: bool = False
    can_take: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None
    _has_asked: bool = False

    def start(self) -> None:
        self.can_take.set()
        path, _, query = self.path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.headers.items()],
            "server": ("waybill", 80),
            "client": ("127.0.0.1", 1),
        }
        self.task = asyncio.create_task(self.scene.app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.can_take.wait()
        async with self.came:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.answered = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.raw += message.get("body", b"")
                self.writes.append(message.get("body", b""))
                self.is_over = not message.get("more_body", False)
            self.came.notify_all()

    @property
    def frames(self) -> list[bytes]:
        """Whole frames, without their blank lines."""
        return self.raw.split(b"\n\n")[:-1]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The JSON of every data frame but `[DONE]`."""
        lines = [line for frame in self.frames for line in frame.split(b"\n") if line.startswith(b"data: ")]
        return [orjson.loads(line[6:]) for line in lines if line != b"data: [DONE]"]

    @property
    def ids(self) -> list[int]:
        """The numbers of the frames that have one."""
        return [int(frame.split(b"\n")[0][4:]) for frame in self.frames if frame.startswith(b"id: ")]

    @property
    def words(self) -> str:
        """All content that was told."""
        found = (choice.get("delta", {}).get("content", choice.get("text")) or "" for choice in self._choices())
        return "".join(found)

    @property
    def is_done(self) -> bool:
        """Whether the last frame is `[DONE]`."""
        return self.raw.endswith(b"data: [DONE]\n\n")

    def _choices(self) -> list[dict[str, Any]]:
        return [choice for chunk in self.chunks for choice in chunk.get("choices", ())]

    async def until(self, count: int) -> None:
        """Wait for so many frames."""
        async with asyncio.timeout(PATIENCE_S), self.came:
            await self.came.wait_for(lambda: len(self.frames) >= count)

    async def finish(self) -> "Listener":
        """Wait for the end of the answer; it is held against the document."""
        assert self.task is not None
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self.task)
        problem = conform.found_wrong(self.method, self.path.partition("?")[0], self.status, self.answered, self.raw)
        assert problem is None, f"{self.method} {self.path} {self.status}: {problem}"
        return self

    def json(self) -> Any:
        return orjson.loads(self.raw)


async def written_to(client: Redis, call_id: UUID, *entries: Entry) -> None:
    """Write what a worker would write."""
    pipe = client.pipeline(transaction=False)
    for entry in entries:
        id_, fields = chunks.written(entry)
        pipe.xadd(redis_keys.chunks(call_id), fields, id=id_)
    await pipe.execute()


def words(last: int, *said: str, attempt: int = 1) -> Chunks:
    """An entry whose last chunk has this number."""
    texts = [
        orjson.dumps({"id": "x", "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        for word in said
    ]
    return Chunks(attempt=attempt, last=last, texts=texts)


def end(first: int, attempt: int = 1) -> End:
    """The end of a completed call whose finish chunk has this number."""
    finish = orjson.dumps({"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'
    return End(attempt=attempt, first=first, state="completed", finishes=[finish], usage=usage, cost_usd=b"0.5")


async def over(scene: Scene, call_id: str, content: str | None = "Paris", error: str | None = None) -> None:
    """The call ends on record, and its waiters hear of it; nothing is written to its stream."""
    told = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    await scene.rows(
        "update calls set state = :state, completed_at = app_now(), error_code = :error, prompt_tokens = 1,"
        " completion_tokens = 2, total_tokens = 3, attempt = 1 where id = :id returning id",
        id=UUID(call_id),
        state="failed" if error else "completed",
        error=error,
    )
    response = None if error else orjson.dumps({"choices": [told]}).decode()
    await scene.rows(
        "update call_payloads set response = cast(:response as json) where call_id = :id returning call_id",
        id=UUID(call_id),
        response=response,
    )
    scene.app.state.desk.waiters.wake([UUID(call_id)])


async def following(scene: Scene, count: int) -> None:
    """Until so many follow an event log."""

    async def so_many() -> bool:
        return bool(scene.app.state.desk.log.following == count)

    await until(so_many, f"{count} follow a log")


@asynccontextmanager
async def listening(
    scene: Scene, key: str, method: str, path: str, body: Any = None, *, under: str = "/api", **headers: str
) -> AsyncIterator[Listener]:
    """Ask, and read from then on; who has not read all at the end hangs up. under: the prefix of the path."""
    given = {"Authorization": f"Bearer {key}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    listener = Listener(scene, method, under + path, given, b"" if body is None else orjson.dumps(body))
    listener.start()
    try:
        yield listener
    finally:
        listener.left.set()
        listener.can_take.set()
        if listener.task is not None:
            await asyncio.wait({listener.task}, timeout=PATIENCE_S)
