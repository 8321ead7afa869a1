"""The body of the gateway's refusals, as OpenAI's clients read it."""

from pydantic import ConfigDict

from api.wire.answers import Answer


class GatewayProblem(Answer):
    """What is wrong. code: the status, or a word for the known conditions; provider: None where it is our own error."""

    message: str
    type: str
    param: str | None
    code: int | str
    provider: str | None


class GatewayError(Answer):
    """OpenAI's envelope."""

    model_config = ConfigDict(extra="forbid", title="GatewayError")

    error: GatewayProblem
