"""Batches of a whole Waybill on this machine: accepted, run, cancelled, expired, their files; beside their floors.

python -m bench.batches [--quick | --check]
"""

import asyncio
import sys
import time
from dataclasses import dataclass
from uuid import UUID

from bench import batch_report
from bench.batch_measure import BatchBench, client, copied_s, has_open_lines, lines
from bench.batch_report import CONCURRENCY, Full, Results, Round
from bench.goals import Judged
from bench.measure import Bench
from bench.program import Program, progress, with_batch_unit
from bench.stack import BareLoop, Stack
from bench.usage import Span, cpu
from bench.webhook_measure import Receivers
from shared.batches import MOST_INPUT_BYTES

HEARD = "heard"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """lines: of the large batches. full_bytes: of the one whose file is as large as a file may be.

    run_lines: of the batch that runs to its end. run_s: of the loops beside it.
    """

    rounds: int = 3
    lines: int = 50_000
    full_bytes: int = MOST_INPUT_BYTES
    run_lines: int = 3000
    run_s: float = 5.0


QUICK_PLAN = Plan(rounds=1, lines=10_000, full_bytes=MOST_INPUT_BYTES // 5, run_lines=500, run_s=1.5)


async def measured(stack: Stack, plan: Plan) -> Results:
    """All rounds, on one worker unit and one batch unit."""
    await stack.start(workers=1, batch_workers=1)
    await stack.make_team()
    bare = await BareLoop.start(stack.provider_url)
    beside = Bench(stack, bare, workers=1)
    large, small = lines(plan.lines), lines(plan.run_lines)
    results = Results(file_mb=len(large) / 1e6)
    async with client(stack, stack.team_key) as speaks:
        bench = BatchBench(stack, speaks)
        progress("warming up")
        await bench.run(lines(100))
        await beside.bare(CONCURRENCY, 1.0)
        parts = {**stack.pids, "bare": [bare.pid]}
        before, began = cpu(parts), time.monotonic()
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            results.rounds.append(await one_round(bench, beside, plan, large, small, stack.facts["database_url"]))
        results.span = Span(cpu=cpu(parts).since(before), wall_s=time.monotonic() - began)
        progress("cancelled while somebody listens")
        results.heard_s = await cancelled_and_heard(stack, plan, large)
        progress("a file as large as it may be")
        results.full = await as_large_as_may_be(bench, plan)
    await bare.stop()
    return results


async def one_round(bench: BatchBench, beside: Bench, plan: Plan, large: bytes, small: bytes, url: str) -> Round:
    """The large batch up to its cancellation, again up to its deadline, then one that runs."""
    file_id, upload = await bench.upload(large)
    check = await bench.check(file_id)
    batch_id, accept = await bench.accept(file_id)
    cancel = await bench.cancel(batch_id)
    batch, files = await bench.finish(batch_id)
    copied = await asyncio.to_thread(copied_s, url, str(UUID(batch_id.removeprefix("batch_"))))
    late_id, _ = await bench.accept(file_id)
    expiry = await bench.expire(late_id)
    await bench.finish(late_id)
    ran_s, written_s = await bench.run(small)
    return Round(
        upload=upload,
        check=check,
        accept=accept,
        copied_s=copied,
        cancel=cancel,
        files=files,
        files_mb=await bench.bytes_of(batch) / 1e6,
        expiry=expiry,
        ran_s=ran_s,
        written_s=written_s,
        bare=(await beside.bare(CONCURRENCY, plan.run_s)).timed,
        live=(await beside.whole(CONCURRENCY, plan.run_s)).timed,
    )


async def as_large_as_may_be(bench: BatchBench, plan: Plan) -> Full:
    """As many lines in a file as large as it may be: once, up to its cancellation."""
    data = await asyncio.to_thread(lines, plan.lines, most_bytes=plan.full_bytes)
    file_id, upload = await bench.upload(data)
    batch_id, accept = await bench.accept(file_id)
    await bench.cancel(batch_id)
    await bench.finish(batch_id)
    return Full(file_mb=len(data) / 1e6, upload=upload, accept=accept)


async def cancelled_and_heard(stack: Stack, plan: Plan, large: bytes) -> list[float]:
    """Seconds of the large batch of a team with an endpoint for everything, until its last line has ended.

    The endpoint is deleted each time: what it was not sent yet would go on being sent beside the next.
    """
    found, receivers = [], await Receivers.start()
    hook = {"team_id": HEARD, "webhook_url": f"http://127.0.0.1:{receivers.port}/ok/heard", "events": ["*"]}
    async with client(stack, await stack.make_team(HEARD)) as heard:
        bench = BatchBench(stack, heard)
        for _ in range(plan.rounds):
            made = (await heard.post("/api/webhooks/register", json=hook)).raise_for_status().json()
            file_id, _ = await bench.upload(large)
            batch_id, _ = await bench.accept(file_id)
            began = time.perf_counter()
            await bench.cancel(batch_id)
            await bench.reached(batch_id, lambda batch: not has_open_lines(batch))
            found.append(time.perf_counter() - began)
            (await heard.delete(f"/api/webhooks/{made['webhook_id']}")).raise_for_status()
            await bench.finish(batch_id)
    await receivers.stop()
    return found


def sections(results: Results, plan: Plan) -> dict[str, str]:
    """Of the report."""
    return {
        f"1. {plan.lines} lines, {results.file_mb:.0f} MB: from the file to the first line that may run": (
            batch_report.accepted(results, plan.lines)
        ),
        f"2. Resident memory of {plan.lines} lines: before -> at most": batch_report.memory(results),
        f"3. {plan.lines} lines ended at once, and their error file": batch_report.ended(results),
        f"4. {plan.run_lines} lines run to their end, provider at 0 ms, beside {CONCURRENCY} clients": (
            batch_report.ran(results, plan.run_lines)
        ),
    }


def judged(results: Results, plan: Plan) -> list[Judged]:
    """The goals for batches of so many lines."""
    return batch_report.judged(results, plan.lines)


PROGRAM = Program(
    module="bench.batches",
    about="Batches, each step beside its floor.",
    title="Waybill's batches",
    plan=Plan(),
    quick=QUICK_PLAN,
    told=with_batch_unit,
    measured=measured,
    sections=sections,
    judged=judged,
    runs=lambda results: [results.span],
)


if __name__ == "__main__":
    sys.exit(PROGRAM.main())
