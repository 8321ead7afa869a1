"""What a webhook endpoint is asked to be: the bodies of register and change, and the queries of its routes."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, AliasChoices, BaseModel, Field

from api.fields import Absent, Moment, each_once, moment
from api.lists import Page
from api.wire.event_log import SINCE
from shared import event_types

MAX_HEADERS = 10
MAX_METADATA_BYTES = 2048
MAX_STEP_S = 86_400
MAX_SCHEDULE_S = 604_800

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
PRINTABLE = re.compile(r"[\x20-\x7e]{1,500}")
RESERVED_PREFIXES = ("webhook-", "waybill-", "content-")
RESERVED = {
    "host", "authorization", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
    "proxy-authorization", "cookie", "user-agent", "accept-encoding",
}  # fmt: skip


def _printable(value: str) -> str:
    if not PRINTABLE.fullmatch(value):
        raise ValueError("must be 1 to 500 printable ASCII characters")
    return value


def _ours_are_ours(value: dict[str, str]) -> dict[str, str]:
    for name, content in value.items():
        if name.lower() in RESERVED or name.lower().startswith(RESERVED_PREFIXES):
            raise ValueError("reserved header name")
        if not TOKEN.fullmatch(name) or not PRINTABLE.fullmatch(content):
            raise ValueError("header names are tokens, values 1 to 500 printable ASCII characters")
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("a header is given twice")
    return value


def _small(value: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(value)) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata exceeds {MAX_METADATA_BYTES} bytes")
    return value


def _within_a_week(value: list[float]) -> list[float]:
    if sum(value) > MAX_SCHEDULE_S:
        raise ValueError(f"the delays sum to more than {MAX_SCHEDULE_S} seconds")
    return value


AuthHeader = Annotated[str, AfterValidator(_printable)]
Headers = Annotated[dict[str, str], Field(max_length=MAX_HEADERS), AfterValidator(_ours_are_ours)]
Note = Annotated[dict[str, Any], AfterValidator(_small)]
Timeout = Annotated[float, Field(ge=1, le=30, allow_inf_nan=False)]
Step = Annotated[float, Field(ge=0, le=MAX_STEP_S, allow_inf_nan=False)]
Schedule = Annotated[list[Step], Field(min_length=1, max_length=20), AfterValidator(_within_a_week)]
Rate = Annotated[float, Field(ge=0.1, le=1000, allow_inf_nan=False)]
Concurrency = Annotated[int, Field(ge=1, le=50)]


class Terms(BaseModel):
    """What register and change have in common.

    timeout_s, retry_schedule_s, max_rate_per_s, max_concurrency: null stands for the default.
    """

    events: Annotated[list[str], Field(min_length=1, max_length=50), AfterValidator(each_once)] = list(
        event_types.JOB_DEFAULT
    )
    is_active: bool = True
    auth_header: AuthHeader | None = None
    headers: Headers | None = None
    description: Annotated[str | None, Field(max_length=500)] = None
    metadata: Note | None = None
    signing: Literal["v1", "v1a", "both"] = "v1"
    payload: Literal["thin", "full"] = "thin"
    timeout_s: Timeout | None = None
    retry_schedule_s: Schedule | None = None
    max_rate_per_s: Rate | None = None
    max_concurrency: Concurrency | None = None
    ordered: bool = False
    verify: bool = False


class Register(Terms):
    """The request of both routes that register."""

    team_id: str
    webhook_url: Annotated[str, Field(validation_alias=AliasChoices("webhook_url", "url"))]


class ChangeWebhook(Terms):
    """What is to be changed: a field that is left out stays as it is. `team_id` may be named, not changed."""

    team_id: str | None = None
    webhook_url: Annotated[str, Field(validation_alias=AliasChoices("webhook_url", "url"))] = ""


class EnableWebhook(Absent):
    """The body of enable; it may be left out. recover_since: send again what was not delivered since then."""

    recover_since: Moment | None = None


class SendTest(Absent):
    """The body of test; it may be left out. type: whose example is sent."""

    type: Annotated[str, Field(max_length=100)] = event_types.TEST


class WebhooksQuery(Page):
    """Which endpoints."""

    team_id: Annotated[str | None, Field(description="A team's key needs none, an admin names one.")] = None
    status: Annotated[str | None, Field(description="`active`, `pending_verification` or `disabled`.")] = None


class StatsQuery(Absent):
    """since: the first moment counted."""

    since: Annotated[str | None, Field(description=f"{SINCE} Without it: the last 24 hours.")] = None

    @property
    def since_at(self) -> datetime | None:
        """The first moment counted. Raises BadRequest."""
        return None if self.since is None else moment("since", self.since)
