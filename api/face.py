"""How a family of routes speaks to its clients: where it takes credentials from, and what an error looks like."""

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from api.replies import JSON
from shared.errors import WaybillError


class Face(Protocol):
    """One dialect. `api/http.py` decides what is refused, a face only how that is said."""

    no_key: str
    """What a team's route says to who shows nothing."""

    def credential(self, request: Request) -> tuple[str | None, str | None]:
        """What the client shows: the value of `X-Admin-Key` and that of `Authorization`, or of what stands for it."""

    def may_be_nobody(self, request: Request) -> bool:
        """Whether a server that names a team for requests without a key may let this one in as that team."""

    def refusal(self, request: Request, error: WaybillError) -> Response:
        """The response for an error of ours."""


class Native:
    """The job API: errors are `{"detail": …}`."""

    no_key = "Missing Authorization header. Expected: 'Authorization: Bearer sk-xxx...'"

    def credential(self, request: Request) -> tuple[str | None, str | None]:
        """The two headers themselves."""
        return request.headers.get("x-admin-key"), request.headers.get("authorization")

    def may_be_nobody(self, request: Request) -> bool:  # noqa: ARG002 - the same for all
        """Never."""
        return False

    def refusal(self, request: Request, error: WaybillError) -> Response:  # noqa: ARG002 - the same for all
        """Status, headers and detail of the error."""
        return JSON({"detail": error.detail}, status_code=error.status, headers=error.headers)


NATIVE = Native()
