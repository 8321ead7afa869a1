"""Lease renewal from a thread of its own, so that a busy event loop does not lose what it works on."""

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import psycopg

from shared import log
from shared.calls import RENEW
from shared.db import DEAD_PATH, WAIT_S, session_options
from shared.ids import Fence
from workers.silent_path import hang_up

logger = log.get(__name__)

RETRY_S = 1.0
"""After a renewal that failed: once the database is back, who lives renews before the sweep looks again."""


class Renewer:
    """Renews every lease of this process in one statement, three times per lease, and tries again soon after a failure.

    answer_s: a database that says nothing for so long is asked again on another connection.
    lost: called (on this thread) for each lease that is gone: the call ended or somebody else has it.
    """

    def __init__(
        self,
        url: str,
        lease_s: float,
        held: Callable[[], Collection[Fence]],
        lost: Callable[[Fence], None],
        *,
        answer_s: float = WAIT_S,
    ) -> None:
        self._url = url
        self._lease_s = lease_s
        self._answer_s = answer_s
        self._held = held
        self._lost = lost
        self._is_stopping = False
        self._woken = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self.thread = threading.Thread(target=self._run, name="renewer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def wake(self) -> None:
        """Renew now: a lease may be gone, and nobody told."""
        self._woken.set()

    def stop(self) -> None:
        """Stop and wait for the thread."""
        self._is_stopping = True
        self._woken.set()
        self.thread.join(timeout=2)

    def _run(self) -> None:
        while not self._is_stopping:
            self._woken.wait(self._round_s())
            self._woken.clear()
        self._disconnect()

    def _round_s(self) -> float:
        """Renew once. Returns the seconds until the next round."""
        try:
            self._renew()
        except (psycopg.Error, RuntimeError) as error:  # RuntimeError: no thread could be started for its limit
            logger.warning("renew_failed", error=type(error).__name__)
            self._disconnect()
            return min(RETRY_S, self._lease_s / 3)
        return self._lease_s / 3

    def _renew(self) -> None:
        held = list(self._held())
        if not held:
            return
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=2,
                application_name="waybill-lease",
                options=session_options(),
                **DEAD_PATH,
            )
        given = {"ids": [id_ for id_, _ in held], "numbers": [number for _, number in held], "lease_s": self._lease_s}
        kept = self._kept(self._connection, given)
        still = set(self._held())
        for fence in held:
            if fence not in kept and fence in still:
                self._lost(fence)

    def _kept(self, connection: psycopg.Connection[Any], given: Mapping[str, Any]) -> set[Fence]:
        limit = threading.Timer(self._answer_s, hang_up, (connection,))
        limit.start()
        try:
            return set(connection.execute(RENEW, given).fetchall())
        finally:
            limit.cancel()
            limit.join()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
