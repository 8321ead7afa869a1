"""What list routes share: the page asked for, the dates it is limited to, the link to the next page."""

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field
from starlette.requests import Request

from api.fields import DAY, Absent, moment

MILLISECOND = timedelta(milliseconds=1)
"""Times are shown in milliseconds: an inclusive end takes in all that is shown as equal to it."""


class Page(Absent):
    """`limit` and `offset` of every list."""

    limit: Annotated[int, Field(ge=1, le=1000, description="How many a page has at most.")] = 100
    offset: Annotated[int, Field(ge=0, le=10**9, description="How many to pass over.")] = 0


class Dated(Absent):
    """Things created between two days or times, both included."""

    start_date: str | None = None
    end_date: str | None = None

    @property
    def since(self) -> datetime | None:
        """The first moment included. Raises BadRequest."""
        return None if self.start_date is None else moment("start_date", self.start_date)

    @property
    def before(self) -> datetime | None:
        """The first moment after the end. Raises BadRequest."""
        if self.end_date is None:
            return None
        end = moment("end_date", self.end_date)
        try:
            return end + (timedelta(days=1) if DAY.fullmatch(self.end_date) else MILLISECOND)
        except OverflowError:
            return None


class DatedPage(Page, Dated):
    """A page of things created between two days or times, both included."""


def next_link(request: Request, page: Page, total: int, *, shown: int | None = None) -> dict[str, str]:
    """The `Link` header when more follows, else none. shown: of a page that may end before its limit."""
    following = page.offset + (page.limit if shown is None else shown)
    if following >= total or shown == 0:
        return {}
    url = request.url.include_query_params(limit=page.limit, offset=following)
    return {"Link": f'<{url.path}?{url.query}>; rel="next"'}
