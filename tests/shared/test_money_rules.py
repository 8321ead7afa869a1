"""The rules of money without a database: holds, charges, gates, thresholds and windows."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import charging, ids, rollup
from shared.budgets import Budget, Duration, parse_duration
from shared.charging import Terms
from shared.jobs import Job
from shared.ledger import Account
from shared.money import NANOUSD_PER_USD, with_markup
from shared.prices import Price

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


def job(mode: str, **fields: Any) -> Job:
    made = Job(id=ids.new(), team_id="t", organization_id="o", job_type="test", created_at=NOW, **fields)
    charging.agree(made, Terms(budget_mode=mode, charge_failed_calls=made.charge_failed_calls))
    return made


def ended(mode: str, status: str, **fields: Any) -> Job:
    made = job(mode, status=status, **fields)
    made.credits_held = charging.should_hold(made) if made.calls_total else 0
    return made


def calls(completed: int = 0, failed: int = 0, cancelled: int = 0) -> dict[str, int]:
    total = completed + failed + cancelled
    return {"calls_total": total, "calls_completed": completed, "calls_failed": failed, "calls_cancelled": cancelled}


def usd(dollars: str) -> int:
    return int(Decimal(dollars) * NANOUSD_PER_USD)


def account(**fields: Any) -> Account:
    given_ = {
        "team_id": "t", "allocated": 100, "used": 0, "held": 0, "limit_mode": "hard", "credit_limit": None,
        "alerted": Decimal(0), "alert_at": [Decimal(80), Decimal(90), Decimal(100)],
    }  # fmt: skip
    return Account(**{**given_, **fields})


def budget(**fields: Any) -> Budget:
    given_ = {
        "id": ids.new(), "key_id": ids.new(), "team_id": None, "max_nanousd": 100, "soft_nanousd": None,
        "spent_nanousd": 0, "held_nanousd": 0, "duration": None, "window_started_at": NOW, "resets_at": None,
    }  # fmt: skip
    return Budget(**{**given_, **fields})


EXAMPLES = [
    ("1 three calls completed", ended("job_based", "completed", **calls(3)), 1),
    ("3 the client fails the job", ended("job_based", "failed", **calls(3)), 0),
    ("4 one call failed for good", ended("job_based", "completed", **calls(2, failed=1)), 0),
    (
        "4 and the team pays for such jobs",
        ended("job_based", "completed", charge_failed_calls=True, **calls(2, failed=1)),
        1,
    ),
    ("5 no calls", Job(id=ids.new(), team_id="t", organization_id="o", job_type="x", created_at=NOW), 0),
    ("a cancelled call is no failure", ended("job_based", "completed", **calls(1, cancelled=1)), 1),
    ("only cancelled calls", ended("job_based", "completed", **calls(cancelled=2)), 0),
    ("8 0.034 USD", ended("consumption_usd", "completed", client_cost_nanousd=usd("0.034"), **calls(1)), 1),
    ("9 0.152 USD", ended("consumption_usd", "completed", client_cost_nanousd=usd("0.152"), **calls(1)), 2),
    ("10 three of 0.034 USD", ended("consumption_usd", "completed", client_cost_nanousd=usd("0.102"), **calls(3)), 2),
    (
        "11 0.152 USD with 50 % markup",
        ended("consumption_usd", "completed", client_cost_nanousd=with_markup(usd("0.152"), Decimal(50)), **calls(1)),
        3,
    ),
    ("12 8,500 tokens", ended("consumption_tokens", "completed", total_tokens=8_500, **calls(1)), 1),
    ("12 45,000 tokens", ended("consumption_tokens", "completed", total_tokens=45_000, **calls(1)), 5),
    ("13 cancelled after 0.05 USD",
     ended("consumption_usd", "cancelled", client_cost_nanousd=usd("0.05"), **calls(1)), 1),
    ("used is used when all calls but one failed",
     ended("consumption_tokens", "failed", total_tokens=10_001, **calls(1, failed=3)), 2),
    ("a price of 0 charges nothing", ended("consumption_usd", "completed", **calls(5)), 0),
    ("15 a gateway call completes", ended("job_based", "completed", **calls(1)), 1),
    ("15 a gateway call fails", ended("job_based", "failed", **calls(failed=1)), 0),
]  # fmt: skip


@pytest.mark.parametrize(("job_", "charged"), [row[1:] for row in EXAMPLES], ids=[row[0] for row in EXAMPLES])
def test_worked_examples(job_: Job, charged: int):
    assert charging.owed(job_) == charged


def test_a_job_holds_what_it_used_and_what_its_open_calls_may_use():
    one = job("consumption_usd", client_cost_nanousd=usd("0.034"), estimate_nanousd=usd("0.8"))
    other = job("consumption_tokens", total_tokens=9_999, estimate_tokens=2)
    assert (charging.should_hold(one), charging.should_hold(other), charging.should_hold(job("job_based"))) == (9, 2, 1)


def test_a_hold_is_lowered_to_what_is_wanted_and_never_raised():
    one = job("consumption_tokens", total_tokens=25_000, credits_held=7)
    assert charging.excess(one) == 4
    one.credits_held = 2
    assert charging.excess(one) == 0


@given(
    st.integers(min_value=0, max_value=10**18),
    st.decimals(min_value="0.000000001", max_value=10**9, allow_nan=False, allow_infinity=False),
)
def test_dollars_become_credits_exactly_and_rounded_up(nanousd: int, rate: Decimal):
    made = job("consumption_usd", client_cost_nanousd=nanousd)
    made.credits_per_dollar = rate
    assert charging.owed(made) == ceil(Fraction(nanousd) * Fraction(rate) / NANOUSD_PER_USD)


@given(st.lists(st.integers(min_value=0, max_value=10**12), min_size=1, max_size=20))
def test_no_order_of_rounding_charges_more_than_once_per_job(costs: list[int]):
    whole = charging.owed(job("consumption_usd", client_cost_nanousd=sum(costs)))
    parts = [charging.owed(job("consumption_usd", client_cost_nanousd=cost)) for cost in costs]
    assert whole <= sum(parts) <= whole + len(costs)


@pytest.mark.parametrize(
    ("fields", "room"),
    [
        ({"used": 60, "held": 10}, 30),
        ({"used": 60, "held": 10, "credit_limit": 80}, 10),
        ({"used": 60, "held": 10, "credit_limit": 50}, 0),
        ({"used": 60, "held": 40, "limit_mode": "soft"}, None),
        ({"used": 600, "held": 10, "limit_mode": "soft", "credit_limit": 700}, 90),
        ({"used": 600, "held": 10, "limit_mode": "unlimited", "credit_limit": 50}, None),
    ],
)
def test_the_gate_of_each_mode(fields: dict[str, Any], room: int | None):
    assert account(**fields).room == room


def test_a_hold_is_granted_whole_or_not_at_all():
    one = account(used=60, held=37)
    assert [one.hold(2), one.hold(2), one.hold(1), one.hold(1), one.hold(0)] == [True, False, True, False, True]
    assert (one.held, one.available) == (40, 0)


@pytest.mark.parametrize(
    ("fields", "release", "owed", "charge"),
    [
        ({"held": 5}, 5, 3, 3),
        ({"held": 5}, 5, 0, 0),
        ({"used": 90, "held": 5}, 5, 8, 8),
        ({"used": 90, "held": 5}, 5, 25, 10),
        ({"used": 90, "held": 8}, 5, 25, 7),
        ({"used": 90, "held": 5, "credit_limit": 97}, 5, 25, 7),
        ({"used": 90, "held": 5, "credit_limit": 10}, 5, 25, 5),
        ({"used": 90, "held": 5, "limit_mode": "soft", "credit_limit": 97}, 5, 25, 25),
        ({"used": 90, "held": 5, "limit_mode": "unlimited"}, 5, 25, 25),
    ],
)
def test_a_charge_above_the_hold_is_taken_as_far_as_free_credits_reach(
    fields: dict[str, Any], release: int, owed: int, charge: int
):
    one = account(**fields)
    held, used = one.held, one.used
    assert one.settle(release=release, owed=owed) == charge
    assert (one.held, one.used) == (held - release, used + charge)
    assert one.limit_mode != "hard" or one.available >= 0


def test_each_threshold_is_told_once_until_credits_are_added():
    one, told = account(), []
    for used in (79, 80, 89, 70, 85, 95, 100, 60, 100):
        one.used = used
        told.append([int(t) for t in one.crossed()])
    assert told == [[], [80], [], [], [], [90], [100], [], []]
    one.alerted = Decimal(0)
    assert one.crossed() == [80, 90, 100]


@pytest.mark.parametrize(("mode", "last"), [("hard", 100), ("soft", 120), ("unlimited", 100)])
def test_a_soft_team_is_also_told_at_120_percent(mode: str, last: int):
    assert account(limit_mode=mode, used=100, held=20).crossed()[-1] == last


def test_held_credits_count_towards_a_threshold_and_nothing_allocated_has_none():
    assert account(used=40, held=40).crossed() == [80]
    assert account(allocated=0, used=5, limit_mode="soft").crossed() == []
    assert account(used=50, alert_at=[Decimal("12.5"), Decimal(50)]).crossed() == [Decimal("12.5"), 50]


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30s", Duration(seconds=30)),
        ("5m", Duration(seconds=300)),
        ("2h", Duration(seconds=7200)),
        ("30d", Duration(seconds=30 * 86400)),
        ("1mo", Duration(months=1)),
        ("1200mo", Duration(months=1200)),
    ],
)
def test_durations(text: str, length: Duration):
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text", ["", "0s", "5", "m", "-5m", "5 m", "5M", "1.5h", "1w", "1201mo", "9999999999d", "٣d", "5m\n", "5mm"]
)
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_a_budget_begins_the_window_that_now_is_in():
    one = budget(duration="1h", resets_at=NOW + timedelta(hours=1), spent_nanousd=70, held_nanousd=20)
    one.roll(NOW + timedelta(minutes=59))
    assert (one.spent_nanousd, one.window_started_at) == (70, NOW)

    one.roll(NOW + timedelta(hours=5, minutes=30))
    assert (one.spent_nanousd, one.held_nanousd) == (0, 20)
    assert (one.window_started_at, one.resets_at) == (NOW + timedelta(hours=5), NOW + timedelta(hours=6))


@pytest.mark.parametrize("passed_s", [3600, 7199, 7200])
def test_a_window_ends_at_its_reset_and_not_before(passed_s: int):
    one = budget(duration="1h", resets_at=NOW + timedelta(hours=1), spent_nanousd=1)
    one.roll(NOW + timedelta(seconds=passed_s))
    assert one.spent_nanousd == 0
    assert one.window_started_at <= NOW + timedelta(seconds=passed_s) < (one.resets_at or NOW)


def test_monthly_windows_keep_their_day_and_end_on_a_months_last_day_where_it_has_none():
    one = budget(duration="1mo", resets_at=datetime(2026, 1, 31, tzinfo=UTC))
    one.roll(datetime(2026, 2, 1, tzinfo=UTC))
    assert one.resets_at == datetime(2026, 2, 28, tzinfo=UTC)
    other = budget(duration="1mo", resets_at=datetime(2025, 12, 15, tzinfo=UTC))
    other.roll(datetime(2026, 3, 20, tzinfo=UTC))
    assert other.resets_at == datetime(2026, 4, 15, tzinfo=UTC)


def test_a_budget_takes_what_fits_and_moves_it_from_held_to_spent():
    one = budget(spent_nanousd=50, held_nanousd=30)
    assert [one.takes(20), one.takes(21)] == [True, False]
    one.settle(held=30, spent=45)
    assert (one.spent_nanousd, one.held_nanousd) == (95, 0)
    assert not one.takes(6)


def test_an_estimate_counts_cached_tokens_at_the_dearer_price():
    price = Price(input=10, output=30, cached_input=15, source="alias")
    worst = price.most_nanousd(prompt_tokens=1_000_000, completion_tokens=1_000_000)
    assert worst == 45 >= price.cost_nanousd(prompt_tokens=10**6, completion_tokens=10**6, cached_tokens=10**6)


def test_a_day_is_that_of_utc():
    assert rollup.day(datetime.fromisoformat("2026-01-16T01:30:00+03:00")).isoformat() == "2026-01-15"


def test_months_are_counted_from_the_first_window_so_that_a_short_one_shortens_no_other():
    first = datetime(2026, 1, 31, tzinfo=UTC)
    one = budget(duration="1mo", anchored_at=first, resets_at=datetime(2026, 2, 28, tzinfo=UTC))
    ends = []
    for _ in range(3):
        assert one.resets_at is not None
        one.roll(one.resets_at)
        ends.append((one.window_started_at.day, one.resets_at.month, one.resets_at.day))
    assert ends == [(28, 3, 31), (31, 4, 30), (30, 5, 31)]
