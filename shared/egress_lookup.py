"""A resolver that remembers a name's addresses for an instant; whoever uses them checks them again every time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence

from shared.egress import Lookup

KEEP_S = 1.0
MAX_NAMES = 1_000

Addresses = Sequence[str]


class RecentLookups:
    """A Lookup over another one: a burst to one name asks once a second, and once at a time. Failures are not kept."""

    def __init__(self, lookup: Lookup, *, keep_s: float = KEEP_S) -> None:
        self._lookup, self._keep_s = lookup, keep_s
        self._found: OrderedDict[str, tuple[float, Addresses]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Addresses]] = {}

    async def __call__(self, host: str, port: int) -> Addresses:
        """The addresses of a host, at most `keep_s` old. Raises what the lookup below raises."""
        known = self._found.get(host)
        if known is not None and time.monotonic() - known[0] < self._keep_s:
            return known[1]
        asking = self._asking.get(host)
        if asking is None:
            asking = self._asking[host] = asyncio.create_task(self._ask(host, port))
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # its waiters may be gone
        # One waiter whose time is up does not take the answer from the others.
        return await asyncio.shield(asking)

    async def _ask(self, host: str, port: int) -> Addresses:
        asked_at = time.monotonic()
        try:
            addresses = await self._lookup(host, port)
        finally:
            del self._asking[host]
        self._found[host] = (asked_at, addresses)
        self._found.move_to_end(host)
        if len(self._found) > MAX_NAMES:
            self._found.popitem(last=False)
        return addresses
