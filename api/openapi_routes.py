"""The route table as /openapi.json reads it: what each route takes, answers and may refuse, from its signature."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from api.gateway.face import GATEWAY
from api.http import Endpoint, Given, given_of
from api.lists import Page
from api.wire.batches import BatchIn, RetryIn
from api.wire.calls import CallbackIn, CallIn
from api.wire.media import EVENTS, LINES, Media
from shared.wire.gateway import GatewayFields, Streamed

Table = Sequence[tuple[str, str, Endpoint]]
Tables = Sequence[tuple[str, Table]]
"""Each with the prefix that it is documented under."""

JSON = "application/json"
PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
CLAUSE_END = re.compile(r"[.;:](?=\s|$)|\n")
LIMITED = ("messages", "calls")
"""Fields of a body that makes calls, which rate limits count."""
NAMING = ("team_id", "organization_id")
NAMING_OF_GATEWAY = ("user_id", "key", "model")
"""Fields of a query that name a thing, which may not be there."""
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
        model: type[BaseModel] | None = self.given.hints.get("body", self.given.bodies.get(JSON))
        return model

    @property
    def forms(self) -> Mapping[str, Any]:
        """What else than JSON the body may be, by media type: a model of its parts, or a Media."""
        return {media: form for media, form in self.given.bodies.items() if media != JSON}

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
    def is_of_gateway(self) -> bool:
        """Whether it speaks OpenAI's dialect."""
        return self.given.face is GATEWAY

    @property
    def takes_key(self) -> bool:
        """Whether an Idempotency-Key counts."""
        return self.method == "POST" and self.is_known_caller and "once" in self.given.wanted

    @property
    def waits(self) -> bool:
        """Whether `Prefer: wait` is honoured."""
        held = "desk" in self.given.wanted and (not self.is_stream or self.reads_log) and not self.has_lines
        return held and self.is_known_caller and not (self.is_of_gateway and self.makes_a_call)

    @property
    def is_conditional(self) -> bool:
        """Whether it answers with an ETag, and 304 to who has the thing already."""
        if self.method != "GET":
            return False
        return self._asks("wait") or self.path == "/openapi.json" or 304 in self.given.answers

    @property
    def has_ranges(self) -> bool:
        """Whether it answers with a part of the thing when asked for one."""
        return 206 in self.given.answers

    @property
    def has_lines(self) -> bool:
        """Whether it answers with JSON objects, one a line."""
        return any(LINES in contents(answer) for answer in self.given.answers.values())

    @property
    def is_list(self) -> bool:
        """Whether it answers page by page."""
        return self.query is not None and issubclass(self.query, Page)

    @property
    def is_counted(self) -> bool:
        """Whether it is counted against a team's rate limits."""
        if self.is_of_gateway:
            return self.makes_a_call
        fields = self.body.model_fields if self.body is not None else {}
        return self.method == "POST" and self.is_team_route and any(name in fields for name in LIMITED)

    @property
    def is_limited(self) -> bool:
        """Whether a rate limit may refuse it: of a batch, whose lines are counted later, one of 0."""
        return self.is_counted or self.makes_a_batch

    @property
    def makes_a_call(self) -> bool:
        """Whether the call that is accepted may fail while the client waits."""
        if self.is_of_gateway:
            return self.body is not None and issubclass(self.body, GatewayFields)
        return self.body is not None and issubclass(self.body, CallIn)

    @property
    def makes_a_batch(self) -> bool:
        """Whether many requests are accepted as one."""
        return self.body is not None and issubclass(self.body, (BatchIn, RetryIn))

    @property
    def has_callback(self) -> bool:
        """Whether the body may name a URL to be told at."""
        return self.body is not None and issubclass(self.body, CallbackIn)

    @property
    def answers(self) -> Mapping[int, Any]:
        """What a success looks like, by status."""
        found = {**self.given.answers, **({304: None} if self.is_conditional else {})}
        if self.body is not None and issubclass(self.body, Streamed):
            found[200] = (found[200], EVENTS)
        return found

    @property
    def is_page(self) -> bool:
        """Whether it is a file or a page of ours, which touches nothing."""
        if self.is_known_caller:
            return False
        return any(isinstance(answer, Media) and answer != EVENTS for answer in self.answers.values())

    @property
    def is_stream(self) -> bool:
        """Whether it answers, or may answer, with events as they come."""
        return any(EVENTS in contents(answer) for answer in self.answers.values())

    @property
    def reads_log(self) -> bool:
        """Whether it reads the event log, from a cursor or a time on."""
        return self._asks("after") and self._asks("since")

    @property
    def refusals(self) -> list[int]:
        """The statuses of errors that can happen."""
        found: set[int] = {500, *self._refusals_of_caller(), *self._refusals_of_request()}
        if self.makes_a_call or (self.is_stream and not self.reads_log):
            found |= {*CALL_FAILURES}
        if self.reads_log or (self.is_stream and not self.makes_a_call):
            found.add(410)
        if self.is_known_caller or self.body is not None or (self.path_parameters and not self.is_page):
            found.add(503)
        return sorted((self._of_gateway(found) if self.is_of_gateway else found) - set(self.answers))

    def _of_gateway(self, found: set[int]) -> set[int]:
        """What does not validate is 400 there, and what lacks money 402."""
        invalid = {422} if self.takes_key else set()
        unpaid = {402} if self.is_limited else set()
        return (found - {422}) | ({400} if 422 in found else set()) | invalid | unpaid

    def _refusals_of_caller(self) -> set[int]:
        found = {401, 403} if self.is_known_caller else set()
        return found | ({429} if self.is_team_route else set())

    def _refusals_of_request(self) -> set[int]:
        found: set[int] = set()
        naming = (*NAMING, *NAMING_OF_GATEWAY) if self.is_of_gateway else NAMING
        if self.path_parameters or any(map(self._asks, naming)):
            found.add(404)
        if self.query is not None:
            found |= {400, 422}
        if self.body is not None:
            found |= {400, 403, 404, 408, 409, 413, 422}
        if self.body is not None and not self.is_known_caller:
            found |= {401, 429}
        if self.given.reads is not None:
            found |= {400, 408, 413}
        if self.has_ranges:
            found.add(416)
        if self.method == "POST" and self.is_known_caller:
            found |= {400, 408, 409, 413, 422}
        if self.method in {"PUT", "PATCH", "DELETE"}:
            found |= {400, 409}
        return found

    def _asks(self, name: str) -> bool:
        return self.query is not None and name in self.query.model_fields


def contents(answer: Any) -> tuple[Any, ...]:
    """The types of one status' body: it may have several, a JSON one and another."""
    return answer if isinstance(answer, tuple) else (answer,)


def all_documented(tables: Tables) -> Iterator[Documented]:
    """Every route of the tables, in their order."""
    for prefix, table in tables:
        yield from documented(table, prefix)


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
