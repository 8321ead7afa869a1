"""Money: integer nano-dollars inside (1 USD = 1_000_000_000), JSON numbers in USD on the wire."""

from decimal import ROUND_HALF_UP, Decimal

NANOUSD_PER_USD = 1_000_000_000
TOKENS_PER_PRICE_UNIT = 1_000_000
"""Prices are nano-dollars per one million tokens, as providers print them in dollars."""


def usd(nanousd: int) -> float:
    """A JSON number in USD, exact to 9 decimals."""
    return float(Decimal(nanousd) / NANOUSD_PER_USD)


def nanousd(amount_usd: Decimal) -> int:
    """An amount in USD as stored, rounded half up to 1 nano-dollar."""
    return int((amount_usd * NANOUSD_PER_USD).to_integral_value(ROUND_HALF_UP))


def nanousd_per_mtok(usd_per_mtok: Decimal | float | int | None) -> int | None:
    """A price in USD per 1M tokens as stored; None stays None."""
    if usd_per_mtok is None:
        return None
    return int((Decimal(str(usd_per_mtok)) * NANOUSD_PER_USD).to_integral_value(ROUND_HALF_UP))


def usd_per_mtok(nanousd: int | None) -> float | None:
    """A stored price as USD per 1M tokens; None stays None."""
    return None if nanousd is None else usd(nanousd)


def cost_nanousd(tokens_times_price: int) -> int:
    """Nano-dollars of a sum of `tokens * price`, rounded half up."""
    return (tokens_times_price + TOKENS_PER_PRICE_UNIT // 2) // TOKENS_PER_PRICE_UNIT


def with_markup(nanousd: int, markup_percentage: Decimal) -> int:
    """What the client is charged for a provider cost, rounded half up to 1 nano-dollar."""
    if not markup_percentage:
        return nanousd
    return int((nanousd * (1 + markup_percentage / 100)).to_integral_value(ROUND_HALF_UP))
