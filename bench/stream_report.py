"""The results of the stream benchmark as text: aligned tables, units in the heads, medians over the rounds."""

from collections.abc import Sequence
from statistics import median

from bench.goals import Goal, Judged
from bench.loop import percentile
from bench.report import OWN, PARTS, spread, table
from bench.stream_measure import BARE, WHOLE, Open, StreamResults, StreamRun
from bench.stream_question import Kind

Case = tuple[Kind, int]
"""A kind of stream and how many clients ask for it."""

PROCESSES = ("api", "worker", "timer")
FIRST_WORD_MS, CPU_RATIO = 15, 1.3
SOURCE = "streams"
OPEN_RSS = Goal(what="resident memory of the api with all streams open", unit="MB", bound=300, source=SOURCE)
DAMAGED = Goal(what="damaged of the open streams", unit="streams", bound=0, source=SOURCE)


def judged(results: StreamResults, first: Sequence[Case], cpu: Sequence[Case]) -> list[Judged]:
    """The goals: the first word of streams with a pace of their own, the CPU of others, and many streams at once."""
    found = [_first_word(results, case) for case in first] + [_cpu_goal(results, case) for case in cpu]
    if results.open is not None:
        found += [OPEN_RSS.of(results.open.rss_mb["api"]), DAMAGED.of(len(results.open.damaged))]
    return found


def first_words(results: StreamResults, cases: Sequence[Case]) -> str:
    """1: from the request to the first word, all rounds together."""
    rows = []
    for kind, c in cases:
        bare, whole = (_all(results, side, kind, c, "first_ms") for side in (BARE, WHOLE))
        shown = [f"{percentile(side, percent):.1f}" for side in (bare, whole) for percent in (50, 95)]
        added = [f"{percentile(whole, percent) - percentile(bare, percent):+.1f}" for percent in (50, 95)]
        rows.append([_named(kind), f"{c}", f"{len(whole)}", *shown, *added])
    head = ["stream", "c", "streams", "bare p50", "bare p95", "p50 ms", "p95 ms", "added p50", "added p95"]
    return table(head, rows, left=1)


def ages(results: StreamResults, cases: Sequence[Case]) -> str:
    """2: how old a chunk is when it is read, all rounds together."""
    rows = []
    for kind, c in cases:
        bare, whole = (_all(results, side, kind, c, "age_ms") for side in (BARE, WHOLE))
        shown = [f"{percentile(side, percent):.1f}" for side in (bare, whole) for percent in (50, 99, 100)]
        added = [f"{percentile(whole, percent) - percentile(bare, percent):+.1f}" for percent in (50, 99)]
        rows.append([_named(kind), f"{c}", f"{len(whole)}", *shown, *added])
    head = ["stream", "c", "chunks", "bare p50", "p99", "max", "p50 ms", "p99 ms", "max ms", "added p50", "added p99"]
    return table(head, rows, left=1)


def speeds(results: StreamResults, cases: Sequence[Case]) -> str:
    """3: chunks per second, beside the bare loop of the same round."""
    rows = []
    for kind, c in cases:
        bare, whole = results.of(BARE, kind, c), results.of(WHOLE, kind, c)
        ratios = [_speed(run) / _speed(floor) for run, floor in zip(whole, bare, strict=True)]
        streams = median(run.seen.streams / run.seen.seconds for run in whole)
        speed = [f"{median(map(_speed, side)):.0f}" for side in (bare, whole)]
        rows.append([_named(kind), f"{c}", *speed, f"{streams:.1f}", f"{median(ratios):.2f}", spread(ratios, 2)])
    return table(["stream", "c", "bare chunks/s", "chunks/s", "streams/s", "ratio", "(rounds)"], rows, left=1)


def cpu_by_part(results: StreamResults, cases: Sequence[Case]) -> str:
    """4: CPU per stream, by process, and beside the bare loop of the same round."""
    head = ["CPU ms per stream", *(f"{kind.name} c={c}" for kind, c in cases)]
    rows = [[name, *(_cpu(results, case, (part,)) for case in cases)] for part, name in PARTS.items()]
    rows.append(["bare: async for over litellm", *(_bare_cpu(results, case) for case in cases)])
    for name, parts in (("api to timer", PROCESSES), ("api to Valkey", OWN)):
        rows.append([name, *(_cpu(results, case, parts) for case in cases)])
        shown = [f"{median(_cpu_ratios(results, case, parts)):.2f}" for case in cases]
        rows.append(["  beside bare", *shown])
    idle = (
        f"  idle, api to Valkey use {results.idle_ms:.0f} ms of CPU in a second: a paced stream at c=1 bears it alone"
    )
    return f"{table(head, rows, left=1)}\n{idle}"


def open_streams(found: Open) -> str:
    """5: many at once."""
    before, most = found.rss_before_mb, found.rss_mb
    memory = ", ".join(f"{part} {before[part]:.0f} -> {most[part]:.0f} MB" for part in most)
    seen = found.seen
    per_stream_kb = (most["api"] - before["api"]) * 1024 / max(1, found.most)
    asked = f"{found.asked} asked, {found.most} open at once, {found.whole} whole and in order ({seen.chunks} chunks)"
    age = f"age of a chunk: p50 {seen.age(50):.1f} ms, p99 {seen.age(99):.1f} ms, max {seen.age(100):.1f} ms"
    lines = [
        f"{asked}, {len(found.damaged)} damaged",
        f"resident memory before -> most: {memory}; {per_stream_kb:.0f} kB a stream of the api",
        f"{age}; first word: p50 {seen.first(50):.0f} ms, p99 {seen.first(99):.0f} ms",
        f"the api used {found.api_cpu_s:.1f} s of CPU in {found.seconds:.0f} s",
        *(f"damaged: {reason}" for reason in sorted(set(found.damaged))[:5]),
    ]
    return "\n".join(f"  {line}" for line in lines)


def _named(kind: Kind) -> str:
    pace = f"{kind.every_s * 1000:g} ms apart" if kind.every_s else "at once"
    return f"{kind.name}: {kind.chunks} chunks {pace}"


def _speed(run: StreamRun) -> float:
    return run.seen.chunks / run.seen.seconds


def _all(results: StreamResults, side: str, kind: Kind, concurrency: int, name: str) -> list[float]:
    return [value for run in results.of(side, kind, concurrency) for value in getattr(run.seen, name)]


def _cpu(results: StreamResults, case: Case, parts: Sequence[str]) -> str:
    return f"{median(run.cpu_ms(*parts) for run in results.of(WHOLE, *case)):.1f}"


def _bare_cpu(results: StreamResults, case: Case) -> str:
    return f"{median(run.cpu_ms('bare') for run in results.of(BARE, *case)):.1f}"


def _cpu_ratios(results: StreamResults, case: Case, parts: Sequence[str]) -> list[float]:
    pairs = zip(results.of(WHOLE, *case), results.of(BARE, *case), strict=True)
    return [run.cpu_ms(*parts) / bare.cpu_ms("bare") for run, bare in pairs]


def _first_word(results: StreamResults, case: Case) -> Judged:
    """How much later than bare litellm's it comes, at the median of a round."""
    kind, c = case
    goal = Goal(what=f"added p50 of the first word, {kind.name} c={c}", unit="ms", bound=FIRST_WORD_MS, source=SOURCE)
    pairs = zip(results.of(WHOLE, *case), results.of(BARE, *case), strict=True)
    return goal.of(*(run.seen.first(50) - bare.seen.first(50) for run, bare in pairs))


def _cpu_goal(results: StreamResults, case: Case) -> Judged:
    kind, c = case
    what = f"CPU of a stream beside bare, api to Valkey, {kind.name} c={c}"
    return Goal(what=what, unit="x", bound=CPU_RATIO, source=SOURCE).of(*_cpu_ratios(results, case, OWN))
