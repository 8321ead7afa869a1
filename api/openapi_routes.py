"""The route table as /openapi.json reads it: what each route takes, answers and may refuse, from its signature."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from api.http import Endpoint, Given, given_of
from api.lists import Page
from api.wire.calls import CallbackIn, CallIn
from api.wire.media import Media

Table = Sequence[tuple[str, str, Endpoint]]

PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
CLAUSE_END = re.compile(r"[.;:](?=\s|$)|\n")
LIMITED = ("messages", "calls")
"""Fields of a body that makes calls, which rate limits count."""
CALL_FAILURES = (400, 409, 429, 502, 504)
"""What a call that failed while its client waited is answered with, besides 500."""


@dataclass(frozen=True, kw_only=True)
class Documented:
    """One method of one path. `same_as` is the first route of the table with this endpoint, when it is another."""

    method: str
    path: str
    given: Given
    same_as: str | None

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it: without Starlette's converters."""
        return _template(self.path)

    @property
    def path_parameters(self) -> list[str]:
        """The names in the path."""
        return PARAMETER.findall(self.path)

    @property
    def body(self) -> type[BaseModel] | None:
        """The model of the JSON body."""
        return self.given.hints.get("body")

    @property
    def query(self) -> type[BaseModel] | None:
        """The model of the query string."""
        return self.given.hints.get("query")

    @property
    def words(self) -> tuple[str, str]:
        """Summary and description: the first clause of the handler's docstring, and all of it."""
        text = inspect.getdoc(self.given.handler) or self.given.handler.__name__.replace("_", " ")
        return CLAUSE_END.split(text, maxsplit=1)[0].replace("`", ""), text

    @property
    def is_known_caller(self) -> bool:
        """Whether a credential is needed."""
        return self.given.access != "none"

    @property
    def is_team_route(self) -> bool:
        """Whether a team's key opens it, and its status and limits are checked."""
        return self.given.access in {"team", "any", "any:w"}

    @property
    def takes_key(self) -> bool:
        """Whether an Idempotency-Key counts."""
        return self.method == "POST" and self.is_known_caller and "once" in self.given.wanted

    @property
    def waits(self) -> bool:
        """Whether `Prefer: wait` is honoured."""
        return "desk" in self.given.wanted

    @property
    def is_conditional(self) -> bool:
        """Whether it answers with an ETag, and 304 to who has the thing already."""
        return self.method == "GET" and (self._asks("wait") or self.path == "/openapi.json")

    @property
    def is_list(self) -> bool:
        """Whether it answers page by page."""
        return self.query is not None and issubclass(self.query, Page)

    @property
    def is_counted(self) -> bool:
        """Whether it is counted against a team's rate limits."""
        fields = self.body.model_fields if self.body is not None else {}
        return self.method == "POST" and self.is_team_route and any(name in fields for name in LIMITED)

    @property
    def makes_a_call(self) -> bool:
        """Whether the call that is accepted may fail while the client waits."""
        return self.body is not None and issubclass(self.body, CallIn)

    @property
    def has_callback(self) -> bool:
        """Whether the body may name a URL to be told at."""
        return self.body is not None and issubclass(self.body, CallbackIn)

    @property
    def answers(self) -> Mapping[int, Any]:
        """What a success looks like, by status."""
        return {**self.given.answers, **({304: None} if self.is_conditional else {})}

    @property
    def is_page(self) -> bool:
        """Whether it is a file or a page of ours, which touches nothing."""
        return any(isinstance(answer, Media) for answer in self.answers.values())

    @property
    def refusals(self) -> list[int]:
        """The statuses of errors that can happen."""
        found: set[int] = {500, *self._refusals_of_caller(), *self._refusals_of_request()}
        if self.makes_a_call:
            found |= {*CALL_FAILURES}
        if self.is_known_caller or self.body is not None:
            found.add(503)
        return sorted(found - set(self.answers))

    def _refusals_of_caller(self) -> set[int]:
        found = {401, 403} if self.is_known_caller else set()
        return found | ({429} if self.is_team_route else set())

    def _refusals_of_request(self) -> set[int]:
        found: set[int] = set()
        if self.path_parameters or self._asks("team_id") or self._asks("organization_id"):
            found.add(404)
        if self.query is not None:
            found |= {400, 422}
        if self.body is not None:
            found |= {400, 403, 404, 409, 413, 422}
        if self.body is not None and not self.is_known_caller:
            found |= {401, 429}
        if self.method == "POST" and self.is_known_caller:
            found |= {400, 409, 413, 422}
        if self.method in {"PUT", "PATCH", "DELETE"}:
            found |= {400, 409}
        return found

    def _asks(self, name: str) -> bool:
        return self.query is not None and name in self.query.model_fields


def documented(table: Table, prefix: str = "") -> Iterator[Documented]:
    """Every route of a table, in its order."""
    first: dict[Endpoint, str] = {}
    for method, path, endpoint in table:
        name = f"{method} {_template(prefix + path)}"
        before = first.setdefault(endpoint, name)
        yield Documented(
            method=method, path=prefix + path, given=given_of(endpoint), same_as=None if before == name else before
        )


def _template(path: str) -> str:
    return PARAMETER.sub(r"{\1}", path)
