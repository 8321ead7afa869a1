"""The bodies of refusals: a text, or where a request does not validate."""

from pydantic import ConfigDict

from api.wire.answers import Answer


class Error(Answer):
    """Why it was refused; never an input value or a secret."""

    model_config = ConfigDict(extra="forbid", title="Error")

    detail: str


class Finding(Answer):
    """What is wrong at one place, such as `["body", "calls", 2, "messages"]`."""

    loc: list[str | int]
    msg: str
    type: str


class ValidationErrors(Answer):
    """Everything that does not validate."""

    detail: list[Finding]
