"""The results as text: aligned tables, units in the heads, medians over the rounds."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from bench.loop import percentile
from bench.measure import ACCEPT, BARE, WHOLE, Results, Run

Value = Callable[[Run], float]

PARTS = {
    "api": "api",
    "worker": "worker units (litellm within)",
    "timer": "timer",
    "postgres": "Postgres",
    "valkey": "Valkey",
    "provider": "demo provider",
    "load": "load generator",
}
OWN = ("api", "worker", "timer", "postgres", "valkey")


def speed(run: Run) -> float:
    """Calls per second."""
    return run.timed.calls_per_s


def p50(run: Run) -> float:
    """Median latency in ms."""
    return run.timed.percentile_ms(50)


def p99(run: Run) -> float:
    """99th percentile in ms."""
    return run.timed.percentile_ms(99)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 0) -> str:
    """Columns right-aligned, the first `left` left-aligned; heads above."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    return "\n".join(_line(words, widths, left) for words in lines)


def spread(values: Iterable[float], digits: int = 0) -> str:
    """The lowest and the highest of the rounds."""
    found = sorted(values)
    return f"{found[0]:.{digits}f}-{found[-1]:.{digits}f}"


def ratios(results: Results, workers: int, concurrency: int) -> list[float]:
    """Calls per second of the whole path beside the bare loop of the same round."""
    return [speed(run) / speed(bare) for run, bare in _pairs(results, workers, concurrency)]


def added_ms(results: Results, workers: int, concurrency: int, value: Value) -> list[float]:
    """What a call of the whole path takes longer than in the bare loop of the same round."""
    return [value(run) - value(bare) for run, bare in _pairs(results, workers, concurrency)]


def own_cpu_ms(results: Results, workers: int, concurrency: int) -> list[float]:
    """CPU per call of Waybill, Postgres and Valkey, less that of the bare loop of the same round."""
    pairs = _pairs(results, workers, concurrency)
    return [sum(map(run.cpu_ms, OWN)) - bare.cpu_ms("bare") for run, bare in pairs]


def floor(results: Results, workers: Sequence[int], concurrencies: Sequence[int]) -> str:
    """1: the bare loop, over all its rounds."""
    rows = []
    for c in concurrencies:
        runs = [run for count in workers for run in results.of(BARE, count, c)]
        cpu = _median(runs, lambda run: run.cpu_ms("bare"))
        rows.append([f"{c}", *_speeds(runs), *_ms(runs, p50, p99), f"{cpu:.2f}"])
    return table(["c", "calls/s", "(rounds)", "p50 ms", "p99 ms", "CPU ms/call"], rows)


def whole(results: Results, workers: Sequence[int], concurrencies: Sequence[int]) -> str:
    """2: the whole path, beside the bare loop of the same round."""
    rows = []
    for count in workers:
        for c in concurrencies:
            runs, bare = results.of(WHOLE, count, c), results.of(BARE, count, c)
            found = ratios(results, count, c)
            added = [f"{median(added_ms(results, count, c, value)):+.1f}" for value in (p50, p99)]
            beside = [f"{_median(bare, speed):.0f}", f"{median(found):.2f}", spread(found, 2), *added]
            rows.append([f"{count}", f"{c}", f"{_median(runs, speed):.0f}", *_ms(runs, p50, p99), *beside])
    head = ["workers", "c", "calls/s", "p50 ms", "p99 ms", "bare/s", "ratio", "(rounds)", "added p50", "added p99"]
    return table(head, rows)


def accepted(results: Results, workers: int, concurrency: int) -> str:
    """3: accepting alone."""
    runs = results.of(ACCEPT, workers, concurrency)
    row = [f"{concurrency}", *_speeds(runs), *_ms(runs, p50, p99)]
    cpu = [f"{_median(runs, lambda run, part=part: run.cpu_ms(part)):.2f}" for part in ("api", "postgres", "valkey")]  # type: ignore[misc]
    return table(
        ["c", "accepted/s", "(rounds)", "p50 ms", "p99 ms", "api CPU", "Postgres CPU", "Valkey CPU"], [row + cpu]
    )


def cpu_by_part(results: Results, workers: Sequence[int], concurrencies: Sequence[int]) -> str:
    """4: CPU per call of the whole path, by process."""
    columns = [(count, c) for count in workers for c in concurrencies]
    head = ["CPU ms per call", *(f"w={count} c={c}" for count, c in columns)]
    rows = [[name, *(_cpu(results, column, (part,)) for column in columns)] for part, name in PARTS.items()]
    rows.append(["all of it", *(_cpu(results, column, tuple(PARTS)) for column in columns)])
    rows.append(["bare litellm loop", *(f"{_bare_cpu(results, column):.2f}" for column in columns)])
    rows.append(["Waybill's own", *(f"{median(own_cpu_ms(results, *column)):.2f}" for column in columns)])
    return table(head, rows, left=1)


def start(results: Results) -> str:
    """5: how long a single call on an idle system waited."""
    found = results.start_ms
    row = [f"{len(found)}", *(f"{percentile(found, percent):.1f}" for percent in (50, 90, 99, 100))]
    return table(["calls", "p50 ms", "p90 ms", "p99 ms", "max ms"], [row])


def memory(results: Results) -> str:
    """Resident memory, on one line."""
    return "  " + ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in results.rss_mb.items())


def _line(words: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [
        word.ljust(width) if n < left else word.rjust(width)
        for n, (word, width) in enumerate(zip(words, widths, strict=True))
    ]
    return ("  " + "  ".join(padded)).rstrip()


def _median(runs: Sequence[Run], value: Value) -> float:
    return median(map(value, runs))


def _ms(runs: Sequence[Run], *values: Value) -> list[str]:
    return [f"{_median(runs, value):.1f}" for value in values]


def _speeds(runs: Sequence[Run]) -> list[str]:
    return [f"{_median(runs, speed):.0f}", spread(map(speed, runs))]


def _pairs(results: Results, workers: int, concurrency: int) -> list[tuple[Run, Run]]:
    """Whole path and bare loop of each round."""
    at = (workers, concurrency)
    return list(zip(results.of(WHOLE, *at), results.of(BARE, *at), strict=True))


def _cpu(results: Results, column: tuple[int, int], parts: Sequence[str]) -> str:
    return f"{_median(results.of(WHOLE, *column), lambda run: sum(map(run.cpu_ms, parts))):.2f}"


def _bare_cpu(results: Results, column: tuple[int, int]) -> float:
    return _median(results.of(BARE, *column), lambda run: run.cpu_ms("bare"))
