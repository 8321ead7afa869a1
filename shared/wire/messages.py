"""The messages of a conversation: only what is named here reaches the provider, and nothing that it points to."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
WORDS = ("text", "refusal")
"""Of a part: what people and models wrote, wherever it points to."""

PARTS: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "refusal": (str,),
    "image_url": (dict, str),
    "input_audio": (dict,),
    "file": (dict,),
}
"""Types of parts, and what each has under its own name."""

Content = str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None


class Wire(BaseModel):
    """Strict where JSON can be; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class MessageIn(Wire):
    """One message of the conversation."""

    role: str
    content: Content = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    function_call: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        said = (self.content, self.refusal, self.function_call, self.audio)
        if all(value is None for value in said) and not self.tool_calls and self.role != "function":
            raise ValueError("content is required without tool_calls")
        return self

    @field_validator("content")
    @classmethod
    def _brings_its_data(cls, content: Content) -> Content:
        for part in content if isinstance(content, list) else ():
            _check_part(part)
        return content

    def sent(self) -> dict[str, Any]:
        """As it goes to the provider: what the client named; of nulls only that of the content."""
        said = self.model_dump(exclude_unset=True, exclude_none=True)
        return said if "content" not in self.model_fields_set else {**said, "content": self.content}


def _check_part(part: dict[str, Any]) -> None:
    """Nothing is fetched for a client, neither by us nor by the library: what is sent is all there is."""
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in PARTS:
        raise ValueError(f"a part's type is one of {', '.join(PARTS)}")
    said = part.get(kind)
    if said is None or not isinstance(said, PARTS[kind]):
        raise ValueError(f"a part of type {kind} needs {kind}")
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if isinstance(url, str) and not url.startswith("data:"):
        raise ValueError("image_url must be a data: URL")
    if _names_a_file(part):
        raise ValueError("file_id is not supported: send file_data")
    if any(URL.match(text) for text in _texts({name: value for name, value in part.items() if name not in WORDS})):
        raise ValueError("URLs are not fetched: send the data")


def _names_a_file(value: object) -> bool:
    """Whether something at any depth stands for a file that lies at the provider, where all teams' files may lie."""
    if isinstance(value, dict):
        return value.get("file_id") is not None or any(map(_names_a_file, value.values()))
    return isinstance(value, list) and any(map(_names_a_file, value))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
