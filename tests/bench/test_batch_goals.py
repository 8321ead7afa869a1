"""What a run of the batch benchmark is judged by: each promise about batches has its goal."""

from dataclasses import replace

from bench.batch_measure import Expiry, Memory, Step, lines
from bench.batch_report import Full, Results, Round, ended, judged, memory
from bench.loop import Timed
from shared.batches import MOST_INPUT_BYTES

LITTLE = Memory(before=100, most=110)
TIMED = Timed(seconds=1, latencies_ms=[1])


def step(seconds: float = 1, *, api: Memory = LITTLE, unit: Memory = LITTLE) -> Step:
    return Step(seconds=seconds, api=api, unit=unit)


def a_run() -> Results:
    """All is well in it."""
    round_ = Round(
        upload=step(), check=step(), accept=step(), copied_s=1, cancel=step(), files=step(), files_mb=1,
        expiry=Expiry(unseen_s=3, ended_s=2), ran_s=1, written_s=1, bare=TIMED, live=TIMED,
    )  # fmt: skip
    results = Results(file_mb=55, rounds=[round_], heard_s=[4])
    results.full = Full(file_mb=200, upload=step(), accept=step())
    return results


def missed(results: Results) -> list[str]:
    return [each.goal.what for each in judged(results, 50_000) if not each.is_met]


def test_run_in_which_all_is_well_misses_nothing():
    assert missed(a_run()) == []


def test_each_promise_can_be_missed():
    late, grown = step(11), Memory(before=100, most=201)
    bad = a_run()
    bad.rounds = [replace(bad.rounds[0], upload=step(api=grown), accept=late, cancel=step(6))]
    bad.full = Full(file_mb=200, upload=step(), accept=step(11, unit=grown))
    bad.heard_s = [6]

    assert missed(bad) == [
        "50000 lines, 55 MB: accepted",
        "50000 lines, 55 MB: memory of the api grows by",
        "50000 lines, 200 MB: accepted",
        "50000 lines, 200 MB: memory of a unit grows by",
        "50000 lines cancelled",
        "50000 lines cancelled, each told to an endpoint",
    ]


def test_memory_of_both_files_is_shown_side_by_side():
    results = a_run()
    results.full = Full(file_mb=200, upload=step(), accept=step(unit=Memory(before=250, most=275)))

    rows = [" ".join(line.split()) for line in memory(results).splitlines()]
    assert rows[1] == "55 MB POST /v1/files 1.00 100 -> 110 +10 100 -> 110 +10"
    assert rows[-1] == "200 MB POST /v1/batches until in_progress 1.00 100 -> 110 +10 250 -> 275 +25"


def test_expiry_stands_beside_cancel_without_the_wait_for_the_sweep():
    _, cancel, _, expired, unseen, _ = ended(a_run()).splitlines()

    assert (cancel.split()[2], expired.split()[-2], unseen.split()[-2]) == ("1.00", "2.00", "3.00")


def test_file_as_large_as_it_may_be_is_not_larger():
    few = 500
    size = len(lines(few, most_bytes=MOST_INPUT_BYTES // 100))

    assert MOST_INPUT_BYTES // 100 - few * 10 < size <= MOST_INPUT_BYTES // 100
