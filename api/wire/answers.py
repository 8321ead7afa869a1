"""What every body we send is made of: wire models that /openapi.json publishes and tests hold responses against."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""ISO 8601 UTC with milliseconds and `Z`."""
Usd = Annotated[float, Field(ge=0)]
"""US dollars, at most 9 decimals."""
Count = Annotated[int, Field(ge=0)]
Metadata = dict[str, Any]


class Answer(BaseModel):
    """A body we send: each field is always there (missing values are null), and there is no other."""

    model_config = ConfigDict(extra="forbid")


class Message(Answer):
    """Nothing but what was done."""

    message: str
