"""Admin users, their sessions and the audit log: what clients send and what they get."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, StringConstraints

from api.fields import Absent, Title
from api.lists import DatedPage
from api.passwords import GivenPassword, NewPassword
from api.wire.answers import Answer, Metadata, Time
from shared.admin_users import Role
from shared.intake import MAX_METADATA_BYTES

MAX_EMAIL = 254


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata exceeds {MAX_METADATA_BYTES} bytes")
    return metadata


Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, max_length=MAX_EMAIL, pattern=r"^[^@\s]+@[^@\s]+$"),
]
SmallMetadata = Annotated[dict[str, Any], AfterValidator(_small)]
Word = Annotated[str, Field(max_length=255)]


class Setup(Absent):
    """The first owner."""

    email: Email
    display_name: Title
    password: NewPassword


class Login(Absent):
    """Any text may be tried as an address; what is none belongs to nobody."""

    email: Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, max_length=MAX_EMAIL)]
    password: GivenPassword


class ChangePassword(Absent):
    """A user's own new password."""

    current_password: GivenPassword
    new_password: NewPassword


class ResetPassword(Absent):
    """Somebody's new password."""

    new_password: NewPassword


class NewUser(Setup):
    """Another admin user."""

    role: Role = "user"
    metadata: SmallMetadata = Field(default_factory=dict)


class UserChanges(Absent):
    """What is left out stays as it is."""

    display_name: Title | None = None
    role: Role | None = None
    is_active: Annotated[bool, Field(strict=True)] | None = None
    metadata: SmallMetadata | None = None


class AuditQuery(DatedPage):
    """Which lines of the audit log."""

    action: Word | None = None
    user_id: Word | None = None
    resource_type: Word | None = None


class SetupStatus(Answer):
    """Whether the first owner is still to be made."""

    needs_setup: bool
    has_users: bool


class AdminUser(Answer):
    """An admin user. created_by: another user's id or `admin_key`; null for the first owner."""

    user_id: str
    email: str
    display_name: str
    role: Role
    is_active: bool
    created_at: Time
    created_by: str | None
    last_login: Time | None
    metadata: Metadata


class LoggedIn(Answer):
    """A session's token; expires_in: seconds."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int
    user: AdminUser


class AuditLine(Answer):
    """One deed. user_id: an admin user's id, `admin_key`, or `anonymous` where a login failed."""

    audit_id: str
    user_id: str
    action: str
    resource_type: str
    resource_id: str | None
    details: Metadata
    ip_address: str | None
    created_at: Time
