"""A Waybill in one process: the app on the real servers, and a worker's calls on a provider that answers as told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
from sqlalchemy import text

from api.app import create_app
from shared.attempt_reports import Usage
from shared.calls import Claimed
from shared.db import Database
from shared.messages import Deliver, Ended, Message, RunCalls, RunLines, Stop, TendBatches
from shared.runtime import Runtime
from shared.states import Outcome
from tests.api import conform
from tests.api.admin import Api, unique
from workers.calls import Calls
from workers.provider import Answer, ProviderError, Sink

HELLO = [{"role": "user", "content": "Hello"}]
PRICES = {"pricing_input": 10, "pricing_output": 30}
TOKENS = Usage(prompt_tokens=200, completion_tokens=250, source="provider")
COST_NANOUSD = 200 * 10_000 + 250 * 30_000


def answer(content: str = "Paris", usage: Usage = TOKENS, **fields: Any) -> Answer:
    """What a provider says, in the stored form."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return Answer(response=orjson.dumps({"choices": [choice]}).decode(), finish_reason="stop", usage=usage, **fields)


def refused(code: str = "provider_error", **fields: Any) -> ProviderError:
    """A failure of a provider that is worth another try unless `again` says otherwise."""
    return ProviderError(code, **{"outcome": Outcome.FAILED, "again": "same", **fields})


@dataclass(frozen=True, kw_only=True)
class Saying:
    """A step told in pieces: words of the first choice, all that choices say, or an event that it waits for."""

    pieces: Sequence[str | list[dict[str, Any]] | asyncio.Event]
    then: Answer | Exception

    async def tell(self, sink: Sink) -> None:
        """Stream it; what has no pieces is an answer that comes in one, or a failure before the first."""
        for piece in self.pieces or self._whole():
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                await sink.send([{"index": 0, "delta": {"content": piece}}] if isinstance(piece, str) else piece)

    def _whole(self) -> list[list[dict[str, Any]]]:
        if isinstance(self.then, Exception):
            return []
        return [[_said(choice)] for choice in orjson.loads(self.then.response)["choices"]]


def saying(*pieces: str | list[dict[str, Any]] | asyncio.Event, then: Answer | Exception | None = None) -> Saying:
    """A step told in these pieces; its answer is all their words unless `then` says otherwise."""
    words = "".join(piece for piece in pieces if isinstance(piece, str))
    return Saying(pieces=pieces, then=answer(words) if then is None else then)


def _said(choice: Mapping[str, Any]) -> dict[str, Any]:
    if "text" in choice:
        return {"index": choice["index"], "text": choice["text"]}
    return {
        "index": choice["index"],
        "delta": {n: value for n, value in choice["message"].items() if value is not None},
    }


Step = Answer | Exception | Saying | Callable[[], Any]


@dataclass
class Scripted:
    """A provider that takes the next step for each request, and says Paris when there is none."""

    steps: list[Step] = field(default_factory=list)
    asked: list[Claimed] = field(default_factory=list)
    closed: list[UUID] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.held.set()

    async def complete(self, call: Claimed, *, timeout_s: float, sink: Sink | None = None) -> Answer:
        self.asked.append(call)
        async with self.came:
            self.came.notify_all()
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.closed.append(call.id)
            raise
        step = self.steps.pop(0) if self.steps else answer()
        if callable(step):
            step = await step()
        saying = step if isinstance(step, Saying) else Saying(pieces=(), then=step)
        if sink is not None:
            await saying.tell(sink)
        if isinstance(saying.then, Exception):
            raise saying.then
        return saying.then

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(10), self.came:
            await self.came.wait_for(lambda: len(self.asked) >= count)


@dataclass(frozen=True, kw_only=True)
class Team:
    """A team with one group of models, and its way in."""

    scene: "Scene"
    id: str
    key: str
    models: tuple[str, ...]

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        own = {"Authorization": f"Bearer {self.key}", **{name.replace("_", "-"): v for name, v in headers.items()}}
        return await self.scene.client.request(method, f"/api{path}", json=body, headers=own)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.send("GET", path, **headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self.send("POST", path, body, **headers)

    async def job(self, **fields: Any) -> dict[str, Any]:
        """A new job; with `calls` they are accepted with it."""
        made = await self.post("/jobs/create", {"team_id": self.id, "job_type": "test", **fields})
        assert made.status_code == (202 if "calls" in fields else 200), made.text
        found: dict[str, Any] = made.json()
        return found

    async def submit(self, job_id: str, **fields: Any) -> httpx.Response:
        """A call nobody waits for."""
        body = {"messages": HELLO, **fields}
        return await self.post(f"/jobs/{job_id}/llm-call", body, Prefer="respond-async")

    async def call(self, job_id: str, **fields: Any) -> str:
        """The id of an accepted call."""
        accepted = await self.submit(job_id, **fields)
        assert accepted.status_code == 202, accepted.text
        call_id: str = accepted.json()["call_id"]
        return call_id

    async def complete(self, job_id: str, status: str = "completed", **fields: Any) -> httpx.Response:
        return await self.post(f"/jobs/{job_id}/complete", {"status": status, **fields})

    async def read(self, job_id: str, call_id: str | None = None) -> dict[str, Any]:
        found = await self.get(f"/jobs/{job_id}" + (f"/calls/{call_id}" if call_id else ""))
        assert found.status_code == 200, found.text
        shown: dict[str, Any] = found.json()
        return shown

    async def credits(self) -> tuple[int, int, int]:
        """Remaining, held, available."""
        found = (await self.get("/credits/balance")).json()
        return found["credits_remaining"], found["credits_held"], found["credits_available"]

    async def deductions(self) -> list[int]:
        """The charges on the ledger, oldest first."""
        rows = await self.scene.rows(
            "select amount from credit_entries where team_id = :team and kind = 'deduction' order by id", team=self.id
        )
        return [row.amount for row in rows]


@dataclass
class Scene:
    """rung: every message. With `live` set a bell is heard at once, as by a worker and an api of their own.

    deliver: what hears bells for deliveries, while there is one (tests/sending.py). tend: the same for batches
    (tests/api/batch_requests.py).
    """

    rt: Runtime
    api: Api
    client: httpx.AsyncClient
    app: Any
    provider: Scripted
    worker: Calls
    rung: list[Message]
    live: bool = False
    deliver: Callable[[Sequence[UUID]], Awaitable[None]] | None = None
    tend: Callable[[Sequence[UUID]], Awaitable[None]] | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def ring(self, message: Message) -> None:
        if not message.ids:
            return
        self.rung.append(message)
        if not self.live:
            return
        if isinstance(message, RunCalls | RunLines):
            self.start(self.work(message.ids))
        elif isinstance(message, Deliver) and self.deliver is not None:
            self.start(self.deliver(message.ids))
        elif isinstance(message, TendBatches) and self.tend is not None:
            self.start(self.tend(message.ids))
        elif isinstance(message, Ended):
            self.app.state.desk.waiters.wake(message.ids)
        elif isinstance(message, Stop):
            self.worker.cancel(message.ids)

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def work(self, call_ids: Any) -> list[Claimed]:
        """Claim these calls and run what was won to its close."""
        claimed = await self.worker.claim([UUID(str(id_)) for id_ in call_ids])
        await asyncio.gather(*(self.worker.run(call) for call in claimed))
        return claimed

    async def work_on(self, *call_ids: str) -> None:
        """Run these calls through all their retries."""
        for _ in range(10):
            if not await self.work(call_ids):
                return

    async def team(
        self,
        *,
        credits: int = 1000,  # noqa: A002 - the word of the product
        models: int = 1,
        alias: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Team:
        """A team that may use `models` new aliases; the first one falls back to the others."""
        names = [unique("model") for _ in range(models)]
        for n, name in reversed(list(enumerate(names))):
            more = {"fallbacks": names[1:]} if n == 0 else {}
            await self.api.alias(**{"alias": name, "api_key": "sk-provider", **PRICES, **more, **(alias or {})})
        group = await self.api.group(model_aliases=names)
        made = await self.api.team(access_groups=[group["group_name"]], credits_allocated=credits, **fields)
        return Team(scene=self, id=made["team_id"], key=made["virtual_key"], models=tuple(names))

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        async with self.rt.db.statement() as tx:
            return list(await tx.execute(text(sql), values))

    async def row(self, sql: str, **values: Any) -> Any:
        return (await self.rows(sql, **values))[0]

    async def attempts(self, call_id: str) -> list[Any]:
        return await self.rows("select * from attempts where call_id = :id order by number", id=UUID(call_id))

    async def events(self, job_id: str) -> list[str]:
        found = await self.rows("select type, sequence from events where job_id = :id order by seq", id=UUID(job_id))
        assert [row.sequence for row in found] == list(range(1, len(found) + 1))
        return [row.type for row in found]

    @asynccontextmanager
    async def later(self, seconds: float) -> AsyncIterator[Runtime]:
        """The same runtime with the database's clock moved on, and standing still there."""
        now: datetime = (await self.row("select app_now() as now")).now
        at = (now + timedelta(seconds=seconds)).isoformat()
        db = Database(self.rt.settings.database_url, pool=4, name="waybill-later", session={"app.now": at})
        yield replace(self.rt, db=db)
        await db.close()


@asynccontextmanager
async def opened(runtime: Runtime, **changed: Any) -> AsyncIterator[Scene]:
    """The scene on this runtime, without retry pauses; `changed` settings."""
    settings = runtime.settings.model_copy(update={"retry_backoff_s": 0, **changed})
    provider = Scripted()
    rung: list[Message] = []
    rt = replace(runtime, settings=settings, ring=lambda message: scene.ring(message))  # noqa: PLW0108 - made below
    app = create_app(rt)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://waybill", event_hooks={"response": [conform.check]}
        ) as client,
    ):
        api = Api(client, settings.admin_key.get_secret_value())
        scene = Scene(rt, api, client, app, provider, Calls(rt, provider, "test-worker"), rung)
        yield scene
        provider.held.set()
        if scene.tasks:
            await asyncio.wait(scene.tasks, timeout=10)


async def agrees(scene: Scene, team: Team) -> None:
    """The account, its holds, its entries and its jobs tell one story."""
    account = await scene.row("select * from credit_accounts where team_id = :id", id=team.id)
    entries = await scene.rows("select * from credit_entries where team_id = :id", id=team.id)
    held = await scene.row("select coalesce(sum(credits), 0) as credits from holds where team_id = :id", id=team.id)
    charged = await scene.row("select coalesce(sum(credits_charged), 0) as n from jobs where team_id = :id", id=team.id)
    assert account.allocated - account.used == sum(entry.amount for entry in entries)
    assert account.held == held.credits
    assert account.used == charged.n == -sum(entry.amount for entry in entries if entry.kind == "deduction")
    assert account.limit_mode != "hard" or account.allocated - account.used - account.held >= 0
