"""Batches of a whole Waybill on this machine: accepted, run, cancelled, their files; each beside its floor.

python -m bench.batches [--quick]
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from uuid import UUID

from bench.batch_measure import BatchBench, Step, client, copied_s, has_open_lines, lines
from bench.loop import Timed
from bench.measure import Bench
from bench.program import Program, progress
from bench.report import table
from bench.stack import BareLoop, Stack
from bench.usage import Span, cpu
from bench.webhook_measure import Receivers

CONCURRENCY = 64
HEARD = "heard"
GOAL_ACCEPT_S, GOAL_GROWN_MB, GOAL_CANCEL_S = 10, 100, 5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """lines: of the large batch. run_lines: of the one that runs to its end. run_s: of the loops beside it."""

    rounds: int = 3
    lines: int = 50_000
    run_lines: int = 3000
    run_s: float = 5.0


LOOK = Plan(rounds=1, lines=10_000, run_lines=500, run_s=1.5)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of everything. Seconds, but for `bare` and `live`: the loops on the same machine meanwhile idle."""

    upload: Step
    check: Step
    accept: Step
    copied_s: float
    cancel: Step
    files: Step
    files_mb: float
    ran_s: float
    written_s: float
    bare: Timed
    live: Timed


@dataclass(kw_only=True)
class Results:
    """Everything that was measured. heard: the large batch was cancelled, each line told of. span: of the rounds.

    file_mb: the size of the large input.
    """

    file_mb: float
    rounds: list[Round] = field(default_factory=list)
    heard: list[Step] = field(default_factory=list)
    span: Span = field(init=False)


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
        results.heard = await cancelled_and_heard(stack, plan, large)
    await bare.stop()
    return results


async def one_round(bench: BatchBench, beside: Bench, plan: Plan, large: bytes, small: bytes, url: str) -> Round:
    """The large batch up to its cancellation, then one that runs."""
    file_id, upload = await bench.upload(large)
    check = await bench.check(file_id)
    batch_id, accept = await bench.accept(file_id)
    cancel = await bench.cancel(batch_id)
    batch, files = await bench.finish(batch_id)
    copied = await asyncio.to_thread(copied_s, url, str(UUID(batch_id.removeprefix("batch_"))))
    ran_s, written_s = await bench.run(small)
    return Round(
        upload=upload,
        check=check,
        accept=accept,
        copied_s=copied,
        cancel=cancel,
        files=files,
        files_mb=await bench.bytes_of(batch) / 1e6,
        ran_s=ran_s,
        written_s=written_s,
        bare=(await beside.bare(CONCURRENCY, plan.run_s)).timed,
        live=(await beside.whole(CONCURRENCY, plan.run_s)).timed,
    )


async def cancelled_and_heard(stack: Stack, plan: Plan, large: bytes) -> list[Step]:
    """The large batch of a team with an endpoint for everything, from the request until its last line has ended.

    The endpoint is deleted each time: what it was not sent yet would go on being sent beside the next.
    """
    steps, receivers = [], await Receivers.start()
    hook = {"team_id": HEARD, "webhook_url": f"http://127.0.0.1:{receivers.port}/ok/heard", "events": ["*"]}
    async with client(stack, await stack.make_team(HEARD)) as heard:
        bench = BatchBench(stack, heard)
        for _ in range(plan.rounds):
            made = (await heard.post("/api/webhooks/register", json=hook)).raise_for_status().json()
            file_id, _ = await bench.upload(large)
            batch_id, _ = await bench.accept(file_id)
            began = time.perf_counter()
            cancel = await bench.cancel(batch_id)
            await bench.reached(batch_id, lambda batch: not has_open_lines(batch))
            steps.append(Step(seconds=time.perf_counter() - began, grown_mb=cancel.grown_mb))
            (await heard.delete(f"/api/webhooks/{made['webhook_id']}")).raise_for_status()
            await bench.finish(batch_id)
    await receivers.stop()
    return steps


def sections(results: Results, plan: Plan) -> dict[str, str]:
    """Of the report."""
    return {
        f"1. {plan.lines} lines, {results.file_mb:.0f} MB: from the file to the first line that may run"
        f" (goal: {GOAL_ACCEPT_S} s, {GOAL_GROWN_MB} MB)": _accepted(results, plan),
        f"2. {plan.lines} lines cancelled, and their error file (goal: {GOAL_CANCEL_S} s)": _cancelled(results),
        f"3. {plan.run_lines} lines run to their end, provider at 0 ms, beside {CONCURRENCY} clients": _ran(
            results, plan
        ),
    }


def _accepted(results: Results, plan: Plan) -> str:
    floor = [each.copied_s for each in results.rounds]
    steps: list[tuple[str, list[Step]]] = [
        ("POST /v1/files", [each.upload for each in results.rounds]),
        ("POST /v1/batches?dry_run=true", [each.check for each in results.rounds]),
        ("POST /v1/batches until in_progress", [each.accept for each in results.rounds]),
    ]
    rows = [_row(name, plan.lines, found, floor) for name, found in steps]
    rows.append(["floor: the same rows by COPY", *_spread(floor), f"{plan.lines / median(floor):.0f}", "1.00", "", ""])
    return table(["step", "s", "(rounds)", "lines/s", "x floor", "api MB", "unit MB"], rows, left=1)


def _row(name: str, count: int, steps: Sequence[Step], floor: Sequence[float]) -> list[str]:
    seconds = [step.seconds for step in steps]
    ratio = median(each / least for each, least in zip(seconds, floor, strict=True))
    api = max(step.grown_mb["api"] for step in steps)
    units = max(grown for step in steps for name, grown in step.grown_mb.items() if name != "api")
    return [name, *_spread(seconds), f"{count / median(seconds):.0f}", f"{ratio:.2f}", f"{api:+.0f}", f"{units:+.0f}"]


def _cancelled(results: Results) -> str:
    rows = [
        ["POST …/cancel", *_spread([each.cancel.seconds for each in results.rounds]), ""],
        ["the same, each line told to an endpoint", *_spread([each.seconds for each in results.heard]), ""],
        [
            "until both files are there",
            *_spread([each.files.seconds for each in results.rounds]),
            f"{median(each.files_mb for each in results.rounds):.1f}",
        ],
    ]
    return table(["step", "s", "(rounds)", "files MB"], rows, left=1)


def _ran(results: Results, plan: Plan) -> str:
    speeds: dict[str, list[float]] = {
        "lines of a batch, one batch unit": [plan.run_lines / each.ran_s for each in results.rounds],
        "live calls, one worker unit": [each.live.calls_per_s for each in results.rounds],
        "floor: bare litellm": [each.bare.calls_per_s for each in results.rounds],
    }
    floor = speeds["floor: bare litellm"]
    rows = []
    for name, found in speeds.items():
        ratio = median(each / most for each, most in zip(found, floor, strict=True))
        rows.append([name, f"{median(found):.0f}", f"{min(found):.0f}-{max(found):.0f}", f"{ratio:.2f}"])
    written = median(each.written_s for each in results.rounds)
    note = f"  its files are there {written:.2f} s after its last line"
    return table(["", "calls/s", "(rounds)", "x floor"], rows, left=1) + "\n" + note


def _spread(values: Sequence[float]) -> list[str]:
    return [f"{median(values):.2f}", f"{min(values):.2f}-{max(values):.2f}"]


PROGRAM = Program(
    module="bench.batches",
    about="Batches, each step beside its floor.",
    title="Waybill's batches",
    plan=Plan(),
    look=LOOK,
    told=lambda plan: f"{plan.rounds} rounds, one api, one worker unit, one batch unit",
    measured=measured,
    sections=sections,
    runs=lambda results: [results.span],
)


if __name__ == "__main__":
    sys.exit(PROGRAM.main())
