"""The keys that sign for endpoints and callbacks, as clients rotate, list and fetch them."""

from typing import Annotated, Literal

from pydantic import Field

from api.fields import Absent, Id
from api.wire.answers import Answer, Time

MAX_GRACE_S = 604_800
DEFAULT_GRACE_S = 86_400


class RotateSecret(Absent):
    """How long the replaced keys sign beside the new ones, in seconds; 0: all older ones end now."""

    grace_s: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = DEFAULT_GRACE_S


class RotateCallbackSecret(Absent):
    """The same for a team's callback key. team_id: whose, for admins; a team rotates its own."""

    team_id: Id | None = None
    grace_s: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = 0


class RotatedSecretOut(Answer):
    """The new secret, which is shown only here, and until when the replaced one signs; null: it ended."""

    webhook_id: str
    secret: str
    previous_expires_at: Time | None
    public_key: str | None


class RotatedCallbackSecretOut(Answer):
    """The new callback key of a team, which is shown only here."""

    team_id: str
    secret: str
    previous_expires_at: Time | None


class WebhookKeyOut(Answer):
    """A key without its value; `public_key` is that of a v1a key. expires_at: null for the newest of its kind."""

    key_id: str
    kind: Literal["v1", "v1a"]
    public_key: str | None
    created_at: Time
    expires_at: Time | None


class WebhookKeysOut(Answer):
    """The keys that may sign for an endpoint, the newest secret first."""

    secrets: list[WebhookKeyOut]


class RevokedSecretOut(Answer):
    """The key signs no more."""

    webhook_id: str
    key_id: str
    message: str


class JwkOut(Answer):
    """An ed25519 public key (RFC 8037)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: str
    x: str
    use: Literal["sig"]
    alg: Literal["EdDSA"]


class JwksOut(Answer):
    """The public keys of an endpoint, those in their grace too."""

    keys: list[JwkOut]
