"""The webhook sender's kept connections: few, shortly, and only for the name, port and address they were made for."""

import asyncio
import time
from collections import OrderedDict

from shared.egress import Target
from workers.webhook_connection import Connection

KEEPALIVE_S = 2.0
"""Below what servers commonly keep open, so that few connections turn out closed when we write."""
MAX_IDLE = 1_000

Key = tuple[str, str, int, str]
"""Scheme, name, port, address. TLS was checked for the name, so no other name may use the connection."""


class KeptConnections:
    """Idle connections, at most `most`, each kept for at most `keep_s`."""

    def __init__(self, most: int, keep_s: float) -> None:
        self._most, self._keep_s = most, keep_s
        self._by_key: dict[Key, list[Connection]] = {}
        self._by_age: OrderedDict[Connection, Key] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._by_age)

    def take(self, target: Target, address: str) -> Connection | None:
        """The connection to this address of this target that was used last, taken out; None without one."""
        connections = self._by_key.get(key_of(target, address))
        while connections:
            connection = connections[-1]
            self._forget(connection)
            if connection.is_open and time.monotonic() - connection.idle_since < self._keep_s:
                return connection
            connection.abort()
        return None

    def give(self, target: Target, address: str, connection: Connection) -> None:
        """Keep a connection that has served its request, or close it when it cannot serve another."""
        if not connection.rest():
            connection.abort()
            return
        key = key_of(target, address)
        connection.idle_since = time.monotonic()
        connection.when_lost = lambda: self._forget(connection)
        self._by_key.setdefault(key, []).append(connection)
        self._by_age[connection] = key
        if len(self._by_age) > self._most:
            self._close_oldest()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._keep_s, self._close_expired)

    async def close(self) -> None:
        """Close all of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._by_age:
            self._close_oldest()
        await asyncio.sleep(0)  # the sockets are closed by the loop's next turn

    def _close_oldest(self) -> None:
        connection = next(iter(self._by_age))
        self._forget(connection)
        connection.abort()

    def _close_expired(self) -> None:
        self._timer = None
        before = time.monotonic() - self._keep_s
        while self._by_age and (oldest := next(iter(self._by_age))).idle_since <= before:
            self._forget(oldest)
            oldest.abort()
        if self._by_age:
            wait_s = next(iter(self._by_age)).idle_since - before
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._close_expired)

    def _forget(self, connection: Connection) -> None:
        connection.when_lost = None
        key = self._by_age.pop(connection, None)
        if key is None:
            return
        connections = self._by_key[key]
        connections.remove(connection)
        if not connections:
            del self._by_key[key]


def key_of(target: Target, address: str) -> Key:
    return (target.scheme, target.host, target.port, address)
