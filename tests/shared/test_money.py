"""Money: integers inside, exact on the wire, rounded half up, once."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import money


@pytest.mark.parametrize(
    ("nanousd", "usd"), [(0, 0.0), (1, 1e-9), (1_500_000, 0.0015), (123_456_789_012, 123.456789012)]
)
def test_dollars_on_the_wire(nanousd: int, usd: float):
    assert money.usd(nanousd) == usd


@given(st.integers(min_value=0, max_value=10**15))
def test_dollars_on_the_wire_lose_nothing(nanousd: int):
    assert round(Decimal(repr(money.usd(nanousd))) * money.NANOUSD_PER_USD) == nanousd


@pytest.mark.parametrize(
    ("tokens_times_price", "cost"), [(0, 0), (499_999, 0), (500_000, 1), (1_499_999, 1), (10**9, 1000)]
)
def test_a_cost_is_rounded_half_up(tokens_times_price: int, cost: int):
    assert money.cost_nanousd(tokens_times_price) == cost


@pytest.mark.parametrize(
    ("cost", "markup", "charged"),
    [(152_000_000, "50", 228_000_000), (1, "50", 2), (1, "49", 1), (7, "0", 7), (200, "12.5", 225), (3, "1000", 33)],
)
def test_markup_is_rounded_half_up(cost: int, markup: str, charged: int):
    assert money.with_markup(cost, Decimal(markup)) == charged


@pytest.mark.parametrize(
    ("price", "stored"), [(None, None), (0, 0), (Decimal("0.15"), 150_000_000), (2.5, 2_500_000_000)]
)
def test_prices_as_stored(price, stored: int | None):
    assert money.nanousd_per_mtok(price) == stored
    assert money.usd_per_mtok(stored) == (None if price is None else float(price))
