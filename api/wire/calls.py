"""The call a client sends to the job API: a chat request and what Waybill keeps beside it."""

from typing import Annotated, Any

from pydantic import Field

from shared.wire.chat import ChatFields
from shared.wire.messages import Wire

MAX_DEADLINE_S = 604_800

Deadline = Annotated[float, Field(ge=1, le=MAX_DEADLINE_S)]


class CallbackIn(Wire):
    """Where to tell of the end, on a job or a call."""

    callback_url: str | None = None
    callback_events: list[str] | None = None
    callback_secret: str | None = None


class CallIn(CallbackIn, ChatFields):
    """A call: OpenAI's chat fields and what Waybill keeps beside them."""

    model: str | None = None
    model_group: str | None = None
    purpose: Annotated[str, Field(max_length=200)] | None = None
    call_metadata: dict[str, Any] | None = None
    deadline_s: Deadline | None = None

    @property
    def asked_model(self) -> str | None:
        """The name to resolve: `model`, else `model_group`, else the team's default."""
        return self.model or self.model_group
