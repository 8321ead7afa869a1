"""The schemas of /openapi.json: every wire model once, by pydantic, under the names its classes have."""

from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import AliasChoices, BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

Schema = dict[str, Any]

TEMPLATE = "#/components/schemas/{model}"


class Plain(GenerateJsonSchema):
    """Without a title on each field, which says nothing that its name does not."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the base class has it
        """Never."""
        return False


class Schemas:
    """All types of a document, resolved together, so that each has one name."""

    def __init__(self, taken: Iterable[Any], answered: Iterable[Any]) -> None:
        wanted: dict[tuple[Any, JsonSchemaMode], TypeAdapter[Any]] = {}
        for type_ in taken:
            wanted.setdefault((type_, "validation"), TypeAdapter(type_))
        for type_ in answered:
            wanted.setdefault((type_, "serialization"), TypeAdapter(type_))
        inputs = [(type_, mode, adapter) for (type_, mode), adapter in wanted.items()]
        self._found, shared = TypeAdapter.json_schemas(inputs, ref_template=TEMPLATE, schema_generator=Plain)
        self._components: Schema = shared.get("$defs", {})
        for type_ in {type_ for type_, mode in wanted if mode == "validation"}:
            if isinstance(type_, type) and issubclass(type_, BaseModel):
                _add_other_names(self._resolved(type_), type_)

    def taken(self, type_: Any) -> Schema:
        """The schema of what a client sends."""
        return self._found[type_, "validation"]

    def answered(self, type_: Any) -> Schema:
        """The schema of what we send."""
        return self._found[type_, "serialization"]

    def query(self, model: type[BaseModel]) -> list[Schema]:
        """Its fields as parameters; null cannot be written in a query string."""
        schema = self._resolved(model)
        required = schema.get("required", [])
        return [_parameter(name, field, name in required) for name, field in schema.get("properties", {}).items()]

    def components(self, document: Schema) -> Schema:
        """The named schemas that the document refers to, directly or through another."""
        used: set[str] = set()
        text = orjson.dumps(document).decode()
        while found := {name for name in self._components if name not in used and _refers(text, name)}:
            used |= found
            text = orjson.dumps([self._components[name] for name in found]).decode()
        return {name: self._components[name] for name in sorted(used)}

    def _resolved(self, model: type[BaseModel]) -> Schema:
        schema = self.taken(model)
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        resolved: Schema = self._components[name] if name else schema
        return resolved


def _add_other_names(schema: Schema, model: type[BaseModel]) -> None:
    """Name the other spellings that a field may be sent under."""
    for field in model.model_fields.values():
        if not isinstance(field.validation_alias, AliasChoices):
            continue
        first, *others = [name for name in field.validation_alias.choices if isinstance(name, str)]
        for other in others:
            schema["properties"][other] = {**schema["properties"][first], "description": f"Another name of `{first}`."}
        if first in schema.get("required", []):
            schema["required"].remove(first)
            one = {"anyOf": [{"required": [name]} for name in (first, *others)]}
            schema.setdefault("allOf", []).append(one)


def _parameter(name: str, field: Schema, required: bool) -> Schema:
    schema = _without_null(field)
    said = {"description": text} if (text := schema.pop("description", None)) else {}
    return {"name": name, "in": "query", "required": required, **said, "schema": schema}


def _without_null(schema: Schema) -> Schema:
    plain = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    branches = [branch for branch in plain.get("anyOf", []) if branch != {"type": "null"}]
    if not branches:
        return plain
    del plain["anyOf"]
    return {**plain, **branches[0]} if len(branches) == 1 else {**plain, "anyOf": branches}


def _refers(text: str, name: str) -> bool:
    return f'"{TEMPLATE.format(model=name)}"' in text
