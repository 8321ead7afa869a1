"""A whole Waybill as real processes to use and to break: Postgres, Valkey, demo provider, api, worker units, timer."""

import base64
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import redis
from pydantic import SecretStr

from cli.spawn import free_port
from shared import redis_keys
from shared.settings import Settings
from tests.demo import DemoProvider
from tests.hooks import Hooks
from tests.programs import Program, alive, ended, started
from tests.queries import Queries
from tests.servers import Servers, running_servers
from tests.team import Team, accepted
from tests.waiting import until
from tests.workers.receiver import Answer, receiving

ADMIN_KEY = "stack-admin-key-of-at-least-32-characters"
SECRET_KEY = "stack-secret-key-of-at-least-32-characters"
ENCRYPTION_KEY = base64.b64encode(b"s" * 32).decode()
PRICES = {"pricing_input": 30.0, "pricing_output": 60.0}
SHOWN_LOG_BYTES = 6000

SHORT = {
    "WORKERS": "2",
    "BATCH_WORKERS": "0",
    "LEASE_S": "2",
    "SWEEP_S": "0.4",
    "RERING_S": "1",
    "DISPATCH_S": "0.1",
    "DRAIN_S": "2",
    "WATCHDOG_S": "10",
    "RETRY_BACKOFF_S": "0.05",
    "PROVIDER_TIMEOUT_S": "5",
    "PROVIDER_CONNECT_TIMEOUT_S": "2",
    "FIRST_CHUNK_TIMEOUT_S": "3",
    "CHUNK_TIMEOUT_S": "3",
    "WEBHOOK_TIMEOUT_S": "2",
    "WEBHOOK_RETRY_SCHEDULE_S": "0.2,0.5,1,1,1,1",
}
"""Every time that decides how long a failure lasts, so that tests of failures are short."""


@dataclass(eq=False)
class Stack:
    """Made once per pytest process; `in_test` opens what one test needs and puts everything right after it."""

    servers: Servers
    folder: Path
    database_url: str
    env: dict[str, str]
    api: Program
    worker: Program
    timer: Program
    demo: Program
    units: int
    admin: httpx.AsyncClient = field(init=False)
    provider: DemoProvider = field(init=False)
    frozen: set[int] = field(default_factory=set)
    extra: list[Program] = field(default_factory=list)
    teams: list[Team] = field(default_factory=list)
    _seen: dict[Path, int] = field(default_factory=dict)
    _open: AsyncExitStack = field(default_factory=AsyncExitStack)
    _queries: Queries = field(init=False)

    # What a test talks to.

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.env['WAYBILL_PORT']}"

    @property
    def settings(self) -> Settings:
        """The settings its processes read, for a runtime of the test's own on the same database and Redis."""
        return Settings(
            database_url=self.database_url,
            redis_url=self.env["WAYBILL_REDIS_URL"],
            admin_key=SecretStr(ADMIN_KEY),
            secret_key=SecretStr(SECRET_KEY),
            encryption_key=SecretStr(ENCRYPTION_KEY),
            lease_s=float(self.env["WAYBILL_LEASE_S"]),
        )

    async def team(self, *, fallbacks: int = 0, prices: Any = None, **fields: Any) -> Team:
        """A new team (1000 credits unless told) in a new organization, with aliases of its own at the demo provider."""
        name = f"t-{uuid4().hex[:12]}"
        group, organization = f"group-{name}", f"org-{name}"
        aliases = tuple(f"gpt-4-{n}-{name}" for n in range(1 + fallbacks))
        models = tuple(f"model-{n}-{name}" for n in range(1 + fallbacks))
        terms = {"access_groups": [group], "credits_allocated": 1000}
        await self._make(
            "organizations", {"organization_id": organization, "name": "Acme", "create_default_team": False}
        )
        await self._make("model-access-groups", {"group_name": group})
        for alias, model in reversed(list(zip(aliases, models, strict=True))):
            await self._make("model-aliases", self._alias(alias, model, group, aliases, prices or PRICES))
        made = await self._make("teams", {"organization_id": organization, "team_id": name, **terms, **fields})
        client = await self.client(made["virtual_key"])
        team = Team(
            client=client,
            admin=self.admin,
            sql=self.sql,
            team_id=name,
            key=made["virtual_key"],
            aliases=aliases,
            models=models,
        )
        self.teams.append(team)
        return team

    def _alias(self, alias: str, model: str, group: str, aliases: tuple[str, ...], prices: Any) -> dict[str, Any]:
        return {
            "alias": alias,
            "litellm_model": f"openai/{model}",
            "api_base": self.provider_url,
            "api_key": "sk-demo-provider",
            "access_groups": [group],
            "fallbacks": list(aliases[1:]) if alias == aliases[0] else [],
            **prices,
        }

    async def _make(self, things: str, body: dict[str, Any]) -> dict[str, Any]:
        return accepted(await self.admin.post(f"/api/{things}/create", json=body))

    async def client(self, key: str | None = None) -> httpx.AsyncClient:
        """A client with this virtual key, else the admin's; closed after the test, any number of connections."""
        headers = {"Authorization": f"Bearer {key}"} if key else {"X-Admin-Key": ADMIN_KEY}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        client = httpx.AsyncClient(base_url=self.api_url, headers=headers, limits=limits, timeout=60, trust_env=False)
        return await self._open.enter_async_context(client)

    async def receiver(self, *answers: bytes | Answer) -> Hooks:
        """A webhook receiver on this machine; without answers it says 200."""
        return Hooks(await self._open.enter_async_context(receiving(*answers)))

    async def sql(self, query: str, *params: Any, **named: Any) -> list[Any]:
        """Rows of a query."""
        return await self._queries.rows(query, params or named or None)

    # What a test breaks.

    def worker_pids(self) -> list[int]:
        """The units that run now."""
        file = Path(self.env["WAYBILL_WORKER_PIDS_FILE"])
        return [pid for pid in orjson.loads(file.read_bytes()) if alive(pid)] if file.exists() else []

    async def unit_of(self, call_id: str) -> int:
        """The pid of the unit that has the call."""

        async def held() -> int:
            rows = await self.sql("select worker from calls where id = %s and state = 'in_progress'", call_id)
            return int(rows[0].worker.rsplit(":", 1)[1]) if rows else 0

        return await until(held, f"call {call_id} in progress")

    def kill_worker_unit(self, pid: int | None = None, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a unit (the first, unless named) a signal; its parent forks another when it dies. Returns its pid."""
        pid = pid or self.worker_pids()[0]
        os.kill(pid, number)
        return pid

    def freeze(self, pid: int) -> None:
        """SIGSTOP."""
        self.frozen.add(pid)
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """SIGCONT."""
        self.frozen.discard(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    async def restart_postgres(self) -> None:
        """End it as a crash does, every connection with it, and start it again; returns when it answers."""
        postgres = self.servers.postgres
        os.kill(postgres.pid, signal.SIGQUIT)
        await until(lambda: ended(postgres), "Postgres ends")
        await started(postgres)

    async def start_postgres(self) -> None:
        """Start it again after `servers.postgres.stop()`; returns when it answers."""
        await started(self.servers.postgres)

    def kill_redis(self) -> None:
        """SIGKILL; `start_redis` brings it back with what its append-only file holds."""
        self.servers.valkey.kill()

    async def start_redis(self) -> None:
        """Start it again; returns when it answers."""
        await started(self.servers.valkey)

    def flush_redis(self) -> None:
        """FLUSHALL."""
        with self._redis() as client:
            client.flushall()

    def freeze_redis(self) -> None:
        """It keeps its connections and says nothing, until `thaw_redis`."""
        self.freeze(self.servers.valkey.pid)

    def thaw_redis(self) -> None:
        """It goes on."""
        self.thaw(self.servers.valkey.pid)

    def another(self, program: Program) -> Program:
        """Start a second one of the same kind; it is killed after the test."""
        log = self.folder / f"{program.name}-{len(self.extra) + 2}.log"
        second = Program(program.name, program.words, program.env, log)
        second.start()
        self.extra.append(second)
        return second

    # How it is put right.

    async def restore(self) -> None:
        """Everything runs again and nothing is scripted; returns when all parts answer."""
        for pid in list(self.frozen):
            self.thaw(pid)
        for program in self.extra:
            program.kill()
        self.extra.clear()
        for server in (self.servers.postgres, self.servers.valkey):
            if not server.running:
                await started(server)
        for program in (self.demo, self.api, self.worker, self.timer):
            if not program.running:
                program.start()
        await self.ready()
        await self.provider.reset()

    async def ready(self) -> None:
        """Wait until every part answers: the api, all units, a timer that leads, the provider."""
        async with httpx.AsyncClient(trust_env=False) as client:
            await until(lambda: _answers(client, f"{self.provider_url}/models"), "the demo provider answers")
            await until(lambda: _answers(client, f"{self.api_url}/health/readiness"), "the api is ready")
        await until(self._units_listen, f"{self.units} worker units listen", timeout_s=60)
        await until(self.leader, "a timer leads")

    async def leader(self) -> bool:
        """Whether a timer leads."""
        query = (
            "select 1 from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory' and l.granted"
        )
        return bool(await self.sql(query + " and a.datname = current_database()"))

    async def _units_listen(self) -> bool:
        try:
            with self._redis() as client:
                listening = client.pubsub_numsub(redis_keys.cancel_channel())
        except redis.RedisError:
            return False
        return listening[0][1] >= self.units and len(self.worker_pids()) == self.units

    def logs(self) -> str:
        """What was logged since the test began, the end of each file."""
        parts = []
        for file in sorted(self.folder.glob("*.log")):
            text = file.read_bytes()[self._seen.get(file, 0) :]
            parts.append(f"----- {file.name}\n{text[-SHOWN_LOG_BYTES:].decode(errors='replace')}")
        return "\n".join(parts)

    @asynccontextmanager
    async def in_test(self) -> AsyncIterator["Stack"]:
        """Open clients, mark the logs, and restore everything at the end."""
        self._seen = {file: file.stat().st_size for file in self.folder.glob("*.log")}
        self.teams.clear()
        async with AsyncExitStack() as self._open:
            self._queries = Queries(self.database_url)
            self._open.push_async_callback(self._queries.aclose)
            await self._open_clients()
            try:
                yield self
            finally:
                await self.restore()

    async def _open_clients(self) -> None:
        try:
            await self.ready()
        except AssertionError as error:
            error.add_note(self.logs())
            raise
        self.admin = await self.client()
        control = httpx.AsyncClient(base_url=self.provider_url.removesuffix("/v1"), timeout=60, trust_env=False)
        self.provider = DemoProvider(await self._open.enter_async_context(control), self.folder / "ground-truth.jsonl")

    def stop(self) -> None:
        """Kill what runs."""
        for pid in list(self.frozen):
            self.thaw(pid)
        for program in (*self.extra, self.timer, self.worker, self.api, self.demo):
            program.kill()

    @property
    def provider_url(self) -> str:
        return f"http://127.0.0.1:{self.demo.words[self.demo.words.index('--port') + 1]}/v1"

    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.env["WAYBILL_REDIS_URL"], socket_timeout=2, socket_connect_timeout=2)


@contextmanager
def running_stack(**other: str) -> Iterator[Stack]:
    """Start a stack of its own and return at once; `in_test` waits for it. other: settings, such as LEASE_S="5"."""
    with running_servers() as servers:
        folder = servers.valkey.log.parent
        url = servers.create_database()
        env = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "WAYBILL_HOME": str(folder),
            "WAYBILL_DATABASE_URL": url,
            "WAYBILL_REDIS_URL": servers.valkey.url(),
            "WAYBILL_ADMIN_KEY": ADMIN_KEY,
            "WAYBILL_SECRET_KEY": SECRET_KEY,
            "WAYBILL_ENCRYPTION_KEY": ENCRYPTION_KEY,
            "WAYBILL_PORT": str(free_port()),
            "WAYBILL_WORKER_PIDS_FILE": str(folder / "workers.json"),
            **{f"WAYBILL_{name}": value for name, value in {**SHORT, **other}.items()},
        }
        stack = _programs(servers, folder, url, env)
        try:
            for program in (stack.worker, stack.demo, stack.api, stack.timer):
                program.start()
            yield stack
        finally:
            stack.stop()


class FreshStacks:
    """Starts stacks for one test: `stack = await fresh_stack(LEASE_S="5")`."""

    def __init__(self) -> None:
        self._processes = ExitStack()
        self._opened = AsyncExitStack()
        self._stacks: list[Stack] = []

    async def __call__(self, **settings: str) -> Stack:
        """A stack of its own with these settings; ready."""
        stack = self._processes.enter_context(running_stack(**settings))
        self._stacks.append(stack)
        return await self._opened.enter_async_context(stack.in_test())

    def logs(self) -> str:
        """What all of them logged."""
        return "\n".join(stack.logs() for stack in self._stacks)

    async def aclose(self) -> None:
        """End them."""
        try:
            await self._opened.aclose()
        finally:
            self._processes.close()


def _programs(servers: Servers, folder: Path, url: str, env: dict[str, str]) -> Stack:
    def program(name: str, *words: str) -> Program:
        return Program(name, words, env, folder / f"{name}.log")

    truth, port = str(folder / "ground-truth.jsonl"), str(free_port())
    return Stack(
        servers=servers,
        folder=folder,
        database_url=url,
        env=env,
        api=program("api", "api.main"),
        worker=program("worker", "workers.main"),
        timer=program("timer", "workers.timer"),
        demo=program("provider", "cli", "demo-provider", "--port", port, "--control", "--ground-truth", truth),
        units=int(env["WAYBILL_WORKERS"]) + int(env["WAYBILL_BATCH_WORKERS"]),
    )


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        answer = await client.get(url)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK and answer.json().get("status", "healthy") == "healthy"
