"""What clients of LiteLLM's key routes send: the fields we know by their rules, all others as they are."""

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from api.fields import Absent, AliasName, Limit, Title
from api.wire.gateway_keys import GeneratedKeyOut
from api.wire.key_bodies import MAX_GRACE_S, KeyFields

MAX_EXTRA_BYTES = 10_240
NEVER_NULL = frozenset({"key_type", "aliases", "tags", "permissions", "metadata", "blocked"})
"""Fields in which null means the same as leaving them out."""
OURS = frozenset(GeneratedKeyOut.model_fields)
"""Names in our answers, which nothing that is only kept may take."""
OWN_KEY = re.compile(r"sk-[\x21-\x7e]{13,252}")
NOT_LOGGED = {"key", "metadata", "permissions"}


def _checked_key(key: str) -> str:
    if not OWN_KEY.fullmatch(key):
        raise ValueError("must begin with sk- and have 16 to 255 visible ASCII characters")
    return key


OwnKey = Annotated[
    str, AfterValidator(_checked_key), WithJsonSchema({"type": "string", "pattern": f"^{OWN_KEY.pattern}$"})
]
"""A key of one's own."""
GivenKey = Annotated[str, StringConstraints(min_length=1, max_length=255)]
"""A key, or its hash (`token`)."""


class KeyTerms(KeyFields):
    """What a key may do less than its team; an empty list of models or routes narrows nothing."""

    model_config = ConfigDict(extra="allow")

    team_id: str | None = None
    organization_id: str | None = None
    max_parallel_requests: Limit | None = None
    key_type: Literal["default", "llm_api", "management", "read_only"] = "default"
    tags: Annotated[list[Title], Field(max_length=100)] = Field(default=[])
    permissions: dict[str, Any] = Field(default={})
    aliases: Annotated[dict[AliasName, AliasName], Field(max_length=100)] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None or name not in NEVER_NULL}

    @model_validator(mode="after")
    def _bounded(self) -> "KeyTerms":
        check_size(self.others)
        return self

    @property
    def others(self) -> dict[str, Any]:
        """What is kept and shown, without effect: the permissions, and every field that is not known."""
        unknown = {name: item for name, item in (self.model_extra or {}).items() if name not in OURS}
        return unknown | ({"permissions": self.permissions} if "permissions" in self.model_fields_set else {})

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of the key that were sent, by name."""
        sent = {name: getattr(self, name) for name in COLUMNS if name in self.model_fields_set}
        return sent | {name: sent[name] or None for name in ("models", "allowed_routes") if name in sent}

    def logged(self) -> dict[str, Any]:
        """What the audit log keeps: values of the fields we know, names only of those that may hold anything."""
        known = self.model_fields_set & (set(type(self).model_fields) - NOT_LOGGED)
        names = sorted((self.model_fields_set & {"metadata", "permissions"}) | set(self.model_extra or {}))
        return self.model_dump(mode="json", include=known) | ({"also_set": names} if names else {})


COLUMNS = (
    "key_alias", "user_id", "models", "rpm_limit", "tpm_limit", "max_parallel_requests", "key_type", "allowed_routes",
    "aliases", "tags", "metadata", "blocked",
)  # fmt: skip
"""Fields of a key's body that are columns of the same name."""


class GenerateKey(KeyTerms):
    """The body of POST /key/generate."""

    key: OwnKey | None = None


class UpdateKey(KeyTerms):
    """The body of POST /key/update: what is left out stays; null clears what may be empty."""

    key: GivenKey


class OneKey(Absent):
    """The body of POST /key/block and /key/unblock."""

    key: GivenKey


class RegenerateKey(OneKey):
    """The body of POST /key/regenerate: how long the replaced secret goes on working."""

    grace_s: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = 0


class DeleteKeys(Absent):
    """The body of POST /key/delete: the keys, or their aliases."""

    keys: Annotated[list[GivenKey], Field(max_length=100)] = Field(default=[])
    key_aliases: Annotated[list[Title], Field(max_length=100)] = Field(default=[])


class KeyQuery(Absent):
    """Which key GET /key/info tells of; nothing: the caller's own."""

    key: GivenKey | None = None


class KeyListQuery(Absent):
    """Which keys GET /key/list names: their tokens, or with `return_full_object` all there is to say of them."""

    team_id: str | None = None
    user_id: str | None = None
    page: Annotated[int, Field(ge=1, le=10**7)] = 1
    size: Annotated[int, Field(ge=1, le=100)] = 10
    return_full_object: bool = False


def check_size(others: dict[str, Any]) -> None:
    """Bound what is only kept. Raises ValueError."""
    if len(orjson.dumps(others)) > MAX_EXTRA_BYTES:
        raise ValueError(f"fields that are not known exceed {MAX_EXTRA_BYTES} bytes")
