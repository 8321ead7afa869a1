"""The measurements of batches: a large one is checked, accepted, cancelled; a smaller one runs to its end."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import httpx
import orjson
import psycopg

from bench.question import MODEL
from bench.stack import Stack
from bench.usage import rss_mb

Done = TypeVar("Done")

CHAT = "/v1/chat/completions"
SYSTEM = "You are a careful assistant. " * 30
"""Makes a line about a kilobyte."""
FINAL = ("completed", "failed", "expired", "cancelled")
LOOK_S = 0.05
PATIENCE_S = 900.0

FLOOR = """
drop table if exists bench_lines, bench_texts;
create table bench_lines (like calls including all);
create table bench_texts (like call_payloads including all);
"""
COPY_LINES = """
copy bench_lines (id, job_id, team_id, position, batched, custom_id, model, candidates, estimated_prompt_tokens,
                  estimated_output_tokens, estimate_nanousd, deadline_at) from stdin
"""
COPY_TEXTS = "copy bench_texts (call_id, request) from stdin"
READ_LINES = """
select id, job_id, team_id, position, batched, custom_id, model, candidates, estimated_prompt_tokens,
       estimated_output_tokens, estimate_nanousd, deadline_at from calls where job_id = %s
"""
READ_TEXTS = (
    "select call_id, request::text from call_payloads where call_id in (select id from calls where job_id = %s)"
)


EXPIRE = "update jobs set deadline_at = app_now() where id = %s"


class Memory(NamedTuple):
    """Resident memory of a process in MB: as something began, and at most until it ended."""

    before: float
    most: float

    @property
    def grown(self) -> float:
        """By how much it grew."""
        return self.most - self.before


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that was done. api, unit: their memory; of all units the one that grew most."""

    seconds: float
    api: Memory
    unit: Memory


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """unseen_s: from the deadline until its first line was seen to have expired; ended_s: from there to the last."""

    unseen_s: float
    ended_s: float


class BatchBench:
    """Measures on a running stack with a batch unit; `client` speaks for the bench team."""

    def __init__(self, stack: Stack, client: httpx.AsyncClient) -> None:
        self._stack, self._client = stack, client

    async def upload(self, data: bytes) -> tuple[str, Step]:
        """A file of these lines, as the SDK sends it."""

        async def act() -> str:
            files = {"file": ("bench.jsonl", data)}
            answer = await self._client.post("/v1/files", data={"purpose": "batch"}, files=files)
            file_id: str = answer.raise_for_status().json()["id"]
            return file_id

        return await self._timed(act)

    async def check(self, file_id: str) -> Step:
        """All checks, and nothing accepted."""

        async def act() -> None:
            answer = await self._client.post("/v1/batches?dry_run=true", json=_new(file_id))
            found = answer.raise_for_status().json()
            if not found["valid"]:
                raise RuntimeError(f"the benchmark's lines are refused: {found['errors']}")

        return (await self._timed(act))[1]

    async def accept(self, file_id: str) -> tuple[str, Step]:
        """A batch of that file, from the request until it is in progress."""

        async def act() -> str:
            batch_id = await self.ask(file_id)
            await self.reached(batch_id, lambda batch: batch["status"] != "validating")
            return batch_id

        return await self._timed(act)

    async def ask(self, file_id: str, headers: Mapping[str, str] | None = None) -> str:
        """A batch of that file; its client waits for the check for as long as it is let, unless its headers say no."""
        made = await self._client.post("/v1/batches", json=_new(file_id), headers=headers)
        batch_id: str = made.raise_for_status().json()["id"]
        return batch_id

    async def cancel(self, batch_id: str) -> Step:
        """Every line that has not ended, until the request is answered."""

        async def act() -> None:
            (await self._client.post(f"/v1/batches/{batch_id}/cancel")).raise_for_status()

        return (await self._timed(act))[1]

    async def expire(self, batch_id: str) -> Expiry:
        """Every line that has not ended, by a deadline that is moved to now.

        Only the job's row is written: that deadline is the one of all its lines, and what the sweep looks for.
        """
        with psycopg.connect(self._stack.facts["database_url"], connect_timeout=10) as database:
            database.execute(EXPIRE.encode(), (batch_id.removeprefix("batch_"),))
        began = time.perf_counter()
        await self.reached(batch_id, lambda batch: batch["request_counts"]["expired"])
        seen = time.perf_counter()
        await self.reached(batch_id, lambda batch: not has_open_lines(batch))
        return Expiry(unseen_s=seen - began, ended_s=time.perf_counter() - seen)

    async def finish(self, batch_id: str) -> tuple[dict[str, Any], Step]:
        """Both files, until the batch is final."""
        return await self._timed(lambda: self.reached(batch_id, lambda batch: batch["status"] in FINAL))

    async def run(self, data: bytes) -> tuple[float, float]:
        """A batch from its first line to its last, and the writing of its files: seconds of both."""
        file_id, _ = await self.upload(data)
        batch_id, _ = await self.accept(file_id)
        began = time.perf_counter()
        await self.reached(batch_id, lambda batch: not has_open_lines(batch))
        ran_s = time.perf_counter() - began
        batch, writing = await self.finish(batch_id)
        if batch["request_counts"]["completed"] != batch["request_counts"]["total"]:
            raise RuntimeError(f"lines of the benchmark failed: {batch['error_summary']}")
        return ran_s, writing.seconds

    async def reached(self, batch_id: str, so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The batch, once it is so; it is read often."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            batch: dict[str, Any] = (await self._client.get(f"/v1/batches/{batch_id}")).raise_for_status().json()
            if so(batch):
                return batch
            await asyncio.sleep(LOOK_S)
        raise RuntimeError(f"batch {batch_id} did not get on in {PATIENCE_S:.0f} s")

    async def bytes_of(self, batch: dict[str, Any]) -> int:
        """How large its output and error file are together."""
        files = [batch[name] for name in ("output_file_id", "error_file_id") if batch[name]]
        answers = [(await self._client.get(f"/v1/files/{file}")).raise_for_status() for file in files]
        return sum(answer.json()["bytes"] for answer in answers)

    async def _timed(self, act: Callable[[], Awaitable[Done]]) -> tuple[Done, Step]:
        async with self._memory() as seen:
            began = time.perf_counter()
            done = await act()
            seconds = time.perf_counter() - began
        api, *units = seen
        return done, Step(seconds=seconds, api=api, unit=max(units, key=lambda unit: unit.grown))

    @asynccontextmanager
    async def _memory(self) -> AsyncIterator[list[Memory]]:
        """Of the api and of each unit; the most is kept up to date while this is open."""
        pids = self._stack.pids
        watched = [pids["api"][0], *pids["worker"]]
        seen = [Memory(now, now) for now in map(rss_mb, watched)]

        async def look() -> None:
            while True:
                for n, pid in enumerate(watched):
                    seen[n] = Memory(seen[n].before, max(seen[n].most, rss_mb(pid)))
                await asyncio.sleep(LOOK_S)

        looking = asyncio.create_task(look())
        try:
            yield seen
        finally:
            looking.cancel()


def copied_s(database_url: str, job_id: str) -> float:
    """Seconds for the same rows through COPY into tables like theirs, by one client that does nothing else."""
    with psycopg.connect(database_url, autocommit=True) as database:
        lines = database.execute(READ_LINES, (job_id,)).fetchall()
        texts = database.execute(READ_TEXTS.encode(), (job_id,)).fetchall()
        database.execute(FLOOR.encode())
        began = time.perf_counter()
        with database.transaction(), database.cursor() as cursor:
            for statement, rows in ((COPY_LINES, lines), (COPY_TEXTS, texts)):
                with cursor.copy(statement.encode()) as copy:
                    for row in rows:
                        copy.write_row(row)
        seconds = time.perf_counter() - began
        database.execute("drop table bench_lines, bench_texts")
    return seconds


def client(stack: Stack, key: str) -> httpx.AsyncClient:
    """Speaks for the team of this key."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.port}", headers=headers, timeout=120, trust_env=False)


def lines(count: int, *, most_bytes: int | None = None) -> bytes:
    """An input file; with most_bytes as large as it may be, else about a kilobyte a line."""
    text = SYSTEM
    if most_bytes is not None:
        room = most_bytes // count - len(_line(count, ""))
        text = (SYSTEM * (room // len(SYSTEM) + 1))[:room]
    return b"".join(_line(number, text) for number in range(count))


def _line(number: int, text: str) -> bytes:
    question = f"What is the capital of France? {number}"
    messages = [{"role": "system", "content": text}, {"role": "user", "content": question}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 64}
    return orjson.dumps({"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body}) + b"\n"


def _new(file_id: str) -> dict[str, str]:
    return {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}


def has_open_lines(batch: dict[str, Any]) -> bool:
    """Whether a line of it waits or runs."""
    counts = batch["request_counts"]
    return bool(counts["pending"] + counts["in_progress"])
