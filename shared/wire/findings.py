"""What a validator has against a value, in the words and places that clients are told."""

from collections.abc import Collection, Sequence
from functools import cache
from itertools import takewhile
from typing import Any

from pydantic import AliasChoices, BaseModel, ValidationError

MISSING = {"msg": "field required", "type": "value_error.missing"}
UNION_BRANCHES = {"str", "int", "float", "bool", "constrained-str", "constrained-int", "constrained-float"}

SAYS_ALL = ("value_error.unpriced",)
"""Findings whose words need no place beside them."""


def findings(error: ValidationError, place: str, names: Collection[str]) -> list[dict[str, Any]]:
    """Pydantic's findings in the contract's form: a missing field has the older words, the rest the validator's own.

    names: of the fields there are; a place ends before a name that only the client knows.
    """
    found: dict[tuple[str | int, ...], dict[str, Any]] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        parts = (part for part in item["loc"] if part in names or not _is_branch(part))
        loc = (place, *takewhile(lambda part: isinstance(part, int) or part in names, parts))
        finding = {"loc": list(loc), **_finding(item["type"], item["msg"])}
        # Of a union's branches the one that took the value's type knows best what is wrong with it.
        if loc not in found or (found[loc]["type"].endswith("_type") and not item["type"].endswith("_type")):
            found[loc] = finding
    return list(found.values())


@cache
def names_of(model: type[BaseModel]) -> frozenset[str]:
    """Every field name that can be part of a place in this model."""
    schema = model.model_json_schema()
    described = [schema, *schema.get("$defs", {}).values()]
    aliases = [field.validation_alias for field in model.model_fields.values()]
    choices = [choice for alias in aliases if isinstance(alias, AliasChoices) for choice in alias.choices]
    return frozenset(name for found in (*(one.get("properties", ()) for one in described), choices) for name in found)


def path(parts: Sequence[str | int]) -> str | None:
    """`messages[0].role`; None where a finding is about the whole."""
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return written.removeprefix(".") or None


def sentence(place: str | None, said: str, type_: str) -> str:
    """A finding's words, with its place."""
    if place is None or type_ in SAYS_ALL:
        return said
    return f"'{place}' is a required property" if said == MISSING["msg"] else f"'{place}': {said}"


def _finding(type_: str, msg: str) -> dict[str, str]:
    if type_ == "missing":
        return dict(MISSING)
    if type_ in {"model_type", "model_attributes_type"}:
        return {"msg": "Input should be an object", "type": "object_type"}
    if type_ == "uuid_parsing":  # pydantic's own words show the input
        return {"msg": "Input should be a valid UUID", "type": type_}
    return {"msg": msg.removeprefix("Value error, "), "type": type_}


def _is_branch(part: str | int) -> bool:
    """Whether a part of pydantic's place names a branch of a union and not something the client wrote."""
    return isinstance(part, str) and (part in UNION_BRANCHES or "[" in part)
