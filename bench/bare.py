"""The floor: a bare litellm loop in a process of its own, told by lines of JSON on stdin what to run.

    python -m bench.bare http://127.0.0.1:8090/v1
    {"concurrency": 16, "seconds": 3}                     ->  {"seconds": 3.1, "latencies_ms": [61.2, ...]}
    {"concurrency": 16, "seconds": 3, "kind": "paced"}    ->  {"seconds": 4.1, "streams": 32, "first_ms": [...], ...}

litellm is set up as in a worker unit: same environment, flags, session, arguments, threads and frozen heap. What is
left out is all that Waybill adds: no claim, no attempt, no reading of the answer, no close.
"""

import asyncio
import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import orjson

from bench.loop import Ask, closed_loop
from bench.question import MODEL, QUESTION
from bench.stream_question import KINDS, Kind, apart_s
from bench.stream_seen import Reading, Seen
from workers.environment import prepare_environment, take_provider_keys

CALLS_IN_FLIGHT = 1000
PROVIDER_THREADS = 64
TIMEOUT_S = 600


async def serve(provider_url: str) -> None:
    """Run what each line of stdin asks for; one litellm, one event loop."""
    import litellm

    from workers.litellm_provider import check_library
    from workers.provider_http import open_session

    check_library()
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(PROVIDER_THREADS))
    session = open_session()
    arguments: dict[str, Any] = {
        "model": f"openai/{MODEL}",
        "messages": QUESTION["messages"],
        "api_base": provider_url,
        "api_key": "sk-demo-provider",
        "timeout": TIMEOUT_S,
        "max_retries": 0,
        "stream": False,
        "shared_session": session,
        "no-log": True,
    }

    async def ask() -> None:
        answer = await litellm.acompletion(**arguments)
        if not answer.choices[0].message.content:
            raise RuntimeError("litellm brought an empty answer")

    def stream(kind: Kind, seen: Seen) -> Ask:
        asked = arguments | kind.body(f"openai/{MODEL}")

        async def follow() -> None:
            reading, finished = Reading(kind, seen), False
            async for chunk in await litellm.acompletion(**asked):
                for choice in chunk.choices:
                    finished = finished or choice.finish_reason == "stop"
                    if choice.delta.content:
                        sent_at, _, number = choice.delta.content.partition("|")
                        reading.chunk(float(sent_at), int(number))
            reading.end(finished=finished)

        return follow

    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        wanted = orjson.loads(line)
        kind, seen = KINDS.get(wanted.get("kind", "")), Seen()
        clients = [ask if kind is None else stream(kind, seen)] * wanted["concurrency"]
        timed = await closed_loop(clients, wanted["seconds"], apart_s=apart_s(kind, len(clients)))
        seen.seconds = timed.seconds
        await loop.run_in_executor(None, partial(_answer, orjson.dumps(asdict(timed if kind is None else seen))))
    await session.close()


def _answer(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    take_provider_keys(os.environ)
    prepare_environment(CALLS_IN_FLIGHT)
    asyncio.run(serve(sys.argv[1]))
