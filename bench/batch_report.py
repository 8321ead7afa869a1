"""The results of the batch benchmark as text: aligned tables, units in the heads, medians over the rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.batch_measure import Expiry, Memory, Step
from bench.goals import BUDGET, Goal, Judged
from bench.loop import Timed
from bench.report import spread, table
from bench.usage import Span

CONCURRENCY = 64
SOURCE = "batches"
ACCEPT_S, GROWN_MB, CANCEL_S = 10, 100, 5


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
    expiry: Expiry
    ran_s: float
    written_s: float
    bare: Timed
    live: Timed


@dataclass(frozen=True, kw_only=True)
class Full:
    """The batch whose file is as large as it may be."""

    file_mb: float
    upload: Step
    accept: Step


@dataclass(kw_only=True)
class Results:
    """Everything that was measured. heard_s: the large batch was cancelled, each line told of. span: of the rounds.

    file_mb: the size of the large input.
    """

    file_mb: float
    rounds: list[Round] = field(default_factory=list)
    full: Full = field(init=False)
    heard_s: list[float] = field(default_factory=list)
    span: Span = field(init=False)


def judged(results: Results, lines: int) -> list[Judged]:
    """Accepted in time and with little memory, whatever the size of the file; ended in time."""
    full, found = results.full, []
    for megabytes, uploads, accepts in (
        (results.file_mb, [each.upload for each in results.rounds], [each.accept for each in results.rounds]),
        (full.file_mb, [full.upload], [full.accept]),
    ):
        of = f"{lines} lines, {megabytes:.0f} MB"
        in_s = Goal(what=f"{of}: accepted", unit="s", bound=ACCEPT_S, source=BUDGET)
        api = Goal(what=f"{of}: memory of the api grows by", unit="MB", bound=GROWN_MB, source=SOURCE)
        unit = Goal(what=f"{of}: memory of a unit grows by", unit="MB", bound=GROWN_MB, source=SOURCE)
        pairs = list(zip(uploads, accepts, strict=True))
        found += [
            in_s.of(*(accept.seconds for accept in accepts)),
            api.of(*(_over(upload.api, accept.api).grown for upload, accept in pairs)),
            unit.of(*(_over(upload.unit, accept.unit).grown for upload, accept in pairs)),
        ]
    cancel = Goal(what=f"{lines} lines cancelled", unit="s", bound=CANCEL_S, source=SOURCE)
    heard = Goal(what=f"{lines} lines cancelled, each told to an endpoint", unit="s", bound=CANCEL_S, source=SOURCE)
    return [*found, cancel.of(*(each.cancel.seconds for each in results.rounds)), heard.of(*results.heard_s)]


def accepted(results: Results, lines: int) -> str:
    """1: from the file to the first line that may run."""
    floor = [each.copied_s for each in results.rounds]
    steps: list[tuple[str, list[float]]] = [
        ("POST /v1/files", [each.upload.seconds for each in results.rounds]),
        ("POST /v1/batches?dry_run=true", [each.check.seconds for each in results.rounds]),
        ("POST /v1/batches until in_progress", [each.accept.seconds for each in results.rounds]),
        ("floor: the same rows by COPY", floor),
    ]
    rows = []
    for name, found in steps:
        ratio = median(each / least for each, least in zip(found, floor, strict=True))
        rows.append([name, *_shown(found), f"{lines / median(found):.0f}", f"{ratio:.2f}"])
    return table(["step", "s", "(rounds)", "lines/s", "x floor"], rows, left=1)


def memory(results: Results) -> str:
    """2: in the round in which it grew most, beside that of a file as large as it may be."""
    full, rows = results.full, []
    for megabytes, name, steps in (
        (results.file_mb, "POST /v1/files", [each.upload for each in results.rounds]),
        (results.file_mb, "POST /v1/batches?dry_run=true", [each.check for each in results.rounds]),
        (results.file_mb, "POST /v1/batches until in_progress", [each.accept for each in results.rounds]),
        (full.file_mb, "POST /v1/files", [full.upload]),
        (full.file_mb, "POST /v1/batches until in_progress", [full.accept]),
    ):
        api, unit = _most_grown([step.api for step in steps]), _most_grown([step.unit for step in steps])
        seconds = f"{median(step.seconds for step in steps):.2f}"
        rows.append([f"{megabytes:.0f} MB", name, seconds, *_grown(api), *_grown(unit)])
    head = ["file", "step", "s", "api MB", "grown", "unit MB", "grown"]
    return table(head, rows, left=2)


def ended(results: Results) -> str:
    """3: by a cancel, and by their deadline."""
    expiries = [each.expiry for each in results.rounds]
    rows = [
        ["POST …/cancel", *_shown([each.cancel.seconds for each in results.rounds]), ""],
        ["the same, each line told to an endpoint", *_shown(results.heard_s), ""],
        ["expired, from the first line to the last", *_shown([each.ended_s for each in expiries]), ""],
        ["  before that, until the sweep came to it", *_shown([each.unseen_s for each in expiries]), ""],
        [
            "cancelled, until both files are there",
            *_shown([each.files.seconds for each in results.rounds]),
            f"{median(each.files_mb for each in results.rounds):.1f}",
        ],
    ]
    return table(["step", "s", "(rounds)", "files MB"], rows, left=1)


def ran(results: Results, run_lines: int) -> str:
    """4: beside live calls and the bare loop."""
    speeds: dict[str, list[float]] = {
        "lines of a batch, one batch unit": [run_lines / each.ran_s for each in results.rounds],
        "live calls, one worker unit": [each.live.calls_per_s for each in results.rounds],
        "floor: bare litellm": [each.bare.calls_per_s for each in results.rounds],
    }
    floor = speeds["floor: bare litellm"]
    rows = []
    for name, found in speeds.items():
        ratio = median(each / most for each, most in zip(found, floor, strict=True))
        rows.append([name, f"{median(found):.0f}", spread(found), f"{ratio:.2f}"])
    written = median(each.written_s for each in results.rounds)
    note = f"  its files are there {written:.2f} s after its last line"
    return table(["", "calls/s", "(rounds)", "x floor"], rows, left=1) + "\n" + note


def _shown(seconds: Sequence[float]) -> list[str]:
    return [f"{median(seconds):.2f}", spread(seconds, 2)]


def _over(first: Memory, last: Memory) -> Memory:
    """From the beginning of the first step to the end of the last."""
    return Memory(before=first.before, most=max(first.most, last.most))


def _most_grown(found: Sequence[Memory]) -> Memory:
    return max(found, key=lambda each: each.grown)


def _grown(found: Memory) -> list[str]:
    return [f"{found.before:.0f} -> {found.most:.0f}", f"{found.grown:+.0f}"]
