"""A process of its own that accepts and ends jobs against the same team as others: `python -m tests.money_rival`.

Reads {"database_url", "team", "model", "jobs", "estimate_nanousd", "budget_ids"} as JSON from its stdin, says `ready`,
waits for a line, and prints how each of its jobs fared: {"Accepted": 20, "InsufficientCredits": 10}.
"""

import asyncio
import base64
import sys
from collections import Counter
from typing import Any
from uuid import UUID

import orjson
from pydantic import SecretStr

from shared import calls, clock, closing, ids, intake
from shared.attempt_reports import Report
from shared.db import Database
from shared.ending import End, end_job
from shared.intake import Accepted, Submission
from shared.jobs import Job
from shared.new_calls import NewCall
from shared.prices import PriceMap
from shared.runtime import Runtime, redis_client
from shared.sealer import Sealer
from shared.settings import Settings
from shared.states import CallState, JobStatus, Outcome

AT_ONCE = 4
KEY = base64.b64encode(b"e" * 32).decode()


async def main(given: dict[str, Any]) -> None:
    settings = Settings(
        database_url=given["database_url"],
        redis_url="redis://127.0.0.1:1",
        admin_key=SecretStr("rival-admin-key-of-at-least-32-characters"),
        encryption_key=SecretStr(KEY),
    )
    db = Database(settings.database_url, pool=AT_ONCE, name="waybill-rival")
    client = redis_client(settings.redis_url)
    rt = Runtime(
        settings=settings, db=db, redis=client, ring=lambda _: None, sealer=Sealer(KEY), prices=PriceMap({}, "none")
    )
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> str:
        async with gate:
            return await fare(rt, given)

    async with db.statement():
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
    fared = Counter(await asyncio.gather(*(one() for _ in range(given["jobs"]))))
    sys.stdout.write(orjson.dumps(fared).decode() + "\n")
    await client.aclose()
    await db.close()


async def fare(rt: Runtime, given: dict[str, Any]) -> str:
    """A job of one call from its acceptance to its end, or what it was refused for."""
    job = Job(id=ids.new(), team_id=given["team"], organization_id="org", job_type="rival", created_at=clock.now())
    call = NewCall(
        id=ids.new(), job_id=job.id, team_id=given["team"], model=given["model"], candidates=[given["model"]],
        request='{"messages":[]}', created_at=clock.now(), deadline_s=60, estimate_nanousd=given["estimate_nanousd"],
        budget_ids=[UUID(id_) for id_ in given["budget_ids"]],
    )  # fmt: skip
    [result] = await intake.accept(rt, [Submission(job_id=job.id, team_id=job.team_id, new_job=job, calls=[call])])
    if isinstance(result, Accepted) and not given["budget_ids"]:
        await answer(rt, call)
        await end_job(rt, job.id, End(status=JobStatus.COMPLETED), lambda found: found is not None)
    return type(result).__name__


async def answer(rt: Runtime, call: NewCall) -> None:
    """The call's one attempt succeeds."""
    async with rt.db.transaction() as tx:
        await calls.claim(tx, [call.id], lease_s=30, worker="rival")
        done = Report(call_id=call.id, job_id=call.job_id, number=1, outcome=Outcome.SUCCEEDED,
                      state=CallState.COMPLETED, response="{}")  # fmt: skip
    async with rt.db.transaction() as tx:
        await closing.close_attempts(tx, [done], now=clock.now())


if __name__ == "__main__":
    asyncio.run(main(orjson.loads(sys.stdin.readline())))
