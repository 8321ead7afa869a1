"""How a family of routes speaks to its clients: what an error looks like and which headers every answer carries."""

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from api.replies import JSON
from shared.errors import WaybillError


class Face(Protocol):
    """One dialect. `api/http.py` decides what is refused, a face only how that is said."""

    def credential(self, request: Request) -> tuple[str | None, str | None]:
        """What the client shows: the value of `X-Admin-Key` and that of `Authorization`, or of what stands for it."""

    def refusal(self, request: Request, error: WaybillError) -> Response:
        """The response for an error of ours."""

    def dress(self, request: Request, response: Response) -> None:
        """Put on the response what every answer of these routes carries."""


class Native:
    """The job API: errors are `{"detail": …}`."""

    def credential(self, request: Request) -> tuple[str | None, str | None]:
        """The two headers themselves."""
        return request.headers.get("x-admin-key"), request.headers.get("authorization")

    def refusal(self, request: Request, error: WaybillError) -> Response:  # noqa: ARG002 - the same for all
        """Status, headers and detail of the error."""
        return JSON({"detail": error.detail}, status_code=error.status, headers=error.headers)

    def dress(self, request: Request, response: Response) -> None:
        """Nothing more."""


NATIVE = Native()
