"""One pass over the input file of a batch: each line checked, routed and sized; what is wrong is collected."""

import asyncio
from collections.abc import Collection

import orjson

from shared import clock, file_reading, ids, routing
from shared.batch_verdicts import Sums
from shared.batches import Batch
from shared.errors import WaybillError
from shared.keys import Key
from shared.line_checks import MOST_FAULTS, Body, Fault, Faulty, Line, LineChecks, of_route
from shared.models import Route
from shared.new_lines import NewLine
from shared.runtime import Runtime
from shared.sizing import sized
from shared.states import Endpoint
from shared.wire.gateway import EmbeddingIn

GROUP_LINES = 500
GROUP_BYTES = 4 << 20
"""Of the file. So much is in memory at once, and is one statement, far below the time that one may take."""
TURN_S = 0.005
"""After so long the event loop gets its turn: lines of other batches run on it."""
GROUP_S = 1.0
"""A group is told of after so long however small it is: whoever reads may have a transaction open meanwhile."""
MOST_ROUTES = 1_000
"""Kept in memory: a file may name as many combinations of fallbacks as it has lines."""


class Reading:
    """One pass. sums: of the lines that are in order. faults: the first of each line that is not, in line order.

    only: the positions of the lines that are to be run; None: all.
    """

    def __init__(self, rt: Runtime, batch: Batch, key: Key, *, only: Collection[int] | None = None) -> None:
        self._rt = rt
        self._only = only
        longest = rt.settings.max_body_bytes
        self._lines = file_reading.lines(rt.db, batch.input_file_id, longest=longest)
        self._checks = LineChecks(Endpoint(batch.endpoint), longest=longest)
        self._names: dict[str, Route | WaybillError] = {}
        self._routes: dict[tuple[str, ...], Route | Faulty] = {}
        self._turn_at = 0.0
        self._is_at_end = False
        self.key = key
        self.sums = Sums()
        self.faults: list[Fault] = []

    async def group(self) -> list[NewLine] | None:
        """The next lines that are in order, perhaps none. None at the end, and once enough faults are known.

        Takes no longer than GROUP_S and what reading a piece of the file takes. Raises FileGone.
        """
        if self._is_at_end:
            return None
        lines: list[NewLine] = []
        room, until = GROUP_BYTES, clock.monotonic() + GROUP_S
        while len(lines) < GROUP_LINES and room > 0 and clock.monotonic() < until:
            found = None if self._is_over else await anext(self._lines, None)
            if found is None:
                self._is_at_end = True
                break
            position, raw = found
            await self._yield()
            if raw == b"" or (self._only is not None and position not in self._only):
                continue
            try:
                lines.append(await self._line(self._checks.line(position, raw)))
                room -= len(raw or b"")
            except Faulty as faulty:
                self.faults.append(faulty.at(position))
        return lines

    @property
    def _is_over(self) -> bool:
        return self._checks.is_over or len(self.faults) >= MOST_FAULTS

    async def _yield(self) -> None:
        if clock.monotonic() >= self._turn_at:
            await asyncio.sleep(0)
            self._turn_at = clock.monotonic() + TURN_S

    async def _line(self, line: Line) -> NewLine:
        """The line as it is to be stored. Raises Faulty where it cannot go."""
        body = line.body
        request = sized(self._rt, self.key, await self._route(body), _asked(body))
        made = NewLine(
            id=ids.new(),
            position=line.position,
            custom_id=line.custom_id,
            retries=body.num_retries,
            metadata=orjson.dumps(body.labels).decode() if body.labels else None,
            **request,
        )
        self.sums.add(made.model, tokens=made.estimated_tokens, nanousd=made.estimate_nanousd)
        return made

    async def _route(self, body: Body) -> Route:
        names = (body.model, *(body.fallbacks or ()))
        found = self._routes.get(names)
        if found is None:
            try:
                found = await routing.with_fallbacks(self._find, body.model, body.fallbacks or ())
            except WaybillError as error:
                found = of_route(error)
            if len(self._routes) >= MOST_ROUTES:
                self._routes.clear()
            self._routes[names] = found
        if isinstance(found, Faulty):
            raise found
        return found

    async def _find(self, name: str) -> Route:
        if name not in self._names:
            if len(self._names) >= MOST_ROUTES:
                self._names.clear()
            try:
                async with self._rt.db.hot_statement() as tx:
                    self._names[name] = await routing.route(self._rt, tx, self.key, name)
            except WaybillError as error:
                self._names[name] = error
        found = self._names[name]
        if isinstance(found, WaybillError):
            raise found
        return found


def _asked(body: Body) -> dict[str, object]:
    """What is stored of the request. How an embedding is to be written in the output is only known from here."""
    asked = body.provider_request()
    if isinstance(body, EmbeddingIn) and body.encoding_format == "base64":
        return {**asked, "encoding_format": body.encoding_format}
    return asked
