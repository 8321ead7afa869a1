"""Which time a usage report is about: a month, a day, or between two dates."""

import re
from datetime import UTC, date, datetime, time, timedelta

from api.fields import DAY
from api.lists import Dated
from api.wire.usage import PeriodQuery, UsageQuery
from shared.errors import BadRequest
from shared.usage import Interval

MONTH = re.compile(r"\d{4}-\d{2}")


def interval(query: Dated) -> Interval:
    """Between the dates of a query. Raises BadRequest."""
    return Interval(query.since, query.before)


def period(query: PeriodQuery | UsageQuery, today: date) -> tuple[str, Interval]:
    """What a query asks for, and how it is called: `2026-01`, `2026-01-15`, or `2026-01-01/2026-01-31`.

    Without period and dates it is the month of `today`. Raises BadRequest.
    """
    if query.period is None and (query.start_date or query.end_date):
        return f"{query.start_date or '..'}/{query.end_date or '..'}", interval(query)
    asked = f"{today:%Y-%m}" if query.period is None else query.period
    try:
        if MONTH.fullmatch(asked):
            return asked, _from(date.fromisoformat(f"{asked}-01"), days=31)
        if DAY.fullmatch(asked):
            return asked, _from(date.fromisoformat(asked), days=1)
    except ValueError:
        pass
    raise BadRequest(f"Invalid period: {asked}. Use YYYY-MM or YYYY-MM-DD")


def _from(first: date, *, days: int) -> Interval:
    since = datetime.combine(first, time(), UTC)
    try:
        before = since + timedelta(days=days)
    except OverflowError:
        return Interval(since)
    return Interval(since, before if days == 1 else before.replace(day=1))
