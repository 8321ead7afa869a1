"""The gateway's face: keys from the headers that clients of all kinds send, errors in OpenAI's envelope."""

from starlette.requests import Request
from starlette.responses import Response

from api.face import NATIVE, Face
from api.gateway import paths
from api.gateway.envelope import problem
from api.replies import JSON
from shared.errors import WaybillError

KEY_HEADERS = ("api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key", "x-litellm-api-key")
"""Where a key is looked for, in this order, when `Authorization` has none."""
BEARER = "bearer "


class Gateway:
    """Routes that speak OpenAI's and LiteLLM's dialect."""

    no_key = "No API key provided. Expected: 'Authorization: Bearer sk-xxx...'"

    def credential(self, request: Request) -> tuple[str | None, str | None]:
        """`X-Admin-Key`, and the first key of six headers as `Authorization` would carry it."""
        admin_key, authorization = request.headers.get("x-admin-key"), request.headers.get("authorization")
        if authorization is not None and authorization.lower().startswith(BEARER):
            return admin_key, authorization
        found = next((value for name in KEY_HEADERS if (value := request.headers.get(name))), None)
        if found is None:
            return admin_key, authorization
        return admin_key, found if found.lower().startswith(BEARER) else f"Bearer {found}"

    def may_be_nobody(self, request: Request) -> bool:
        """On the paths that examples without a key use."""
        return paths.is_keyless(request.scope["path"])

    def refusal(self, request: Request, error: WaybillError) -> Response:  # noqa: ARG002 - the same for all
        """The envelope."""
        said = problem(error)
        return JSON(said.body, status_code=said.status, headers=dict(said.headers))


GATEWAY = Gateway()


def face_of(path: str) -> Face:
    """The dialect of a path, also of one that leads nowhere."""
    return GATEWAY if paths.is_ours(path) else NATIVE
