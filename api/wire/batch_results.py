"""What readers of a batch's lines ask for."""

from typing import Annotated

from pydantic import Field

from api.fields import MAX_INT4, Absent

AFTER = (
    "How many lines you have: the answer begins behind them. `X-Next-After` of the answer before, or your own count."
)
LIMIT = "How many lines the answer has at most; without effect with `follow`."
FOLLOW = "Stay open until the last line of the batch has ended."


class ResultsQuery(Absent):
    """Which of the lines that have ended."""

    after: Annotated[int, Field(ge=0, le=MAX_INT4, description=AFTER)] = 0
    limit: Annotated[int, Field(ge=1, le=10_000, description=LIMIT)] = 1000
    follow: Annotated[bool, Field(description=FOLLOW)] = False
