"""The gateway's face: keys from the headers that clients of all kinds send, errors in OpenAI's envelope."""

from starlette.requests import Request
from starlette.responses import Response

from api.gateway.envelope import problem
from api.replies import JSON
from shared.errors import WaybillError


class Gateway:
    """Routes that speak OpenAI's and LiteLLM's dialect."""

    def credential(self, request: Request) -> tuple[str | None, str | None]:
        """`X-Admin-Key`, and `Authorization`."""
        return request.headers.get("x-admin-key"), request.headers.get("authorization")

    def refusal(self, request: Request, error: WaybillError) -> Response:  # noqa: ARG002 - the same for all
        """The envelope."""
        said = problem(error)
        return JSON(said.body, status_code=said.status, headers=dict(said.headers))

    def dress(self, request: Request, response: Response) -> None:
        """Nothing yet."""


GATEWAY = Gateway()
