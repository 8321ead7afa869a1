"""Lease renewal from a thread of its own, so that a busy event loop does not lose what it works on."""

import threading
from collections.abc import Callable, Collection
from typing import Any

import psycopg

from shared import log
from shared.calls import RENEW
from shared.db import DEAD_PATH, session_options
from workers.pool import Fence

logger = log.get(__name__)


class Renewer:
    """Renews every lease of this process in one statement, three times per lease.

    lost: called (on this thread) for each lease that is gone: the call ended or somebody else has it.
    """

    def __init__(
        self, url: str, lease_s: float, held: Callable[[], Collection[Fence]], lost: Callable[[Fence], None]
    ) -> None:
        self._url = url
        self._lease_s = lease_s
        self._held = held
        self._lost = lost
        self._stopping = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self.thread = threading.Thread(target=self._run, name="renewer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def stop(self) -> None:
        """Stop and wait for the thread."""
        self._stopping.set()
        self.thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stopping.wait(self._lease_s / 3):
            try:
                self._renew()
            except psycopg.Error as error:
                logger.warning("renew_failed", error=type(error).__name__)
                self._disconnect()
        self._disconnect()

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
        kept = set(self._connection.execute(RENEW, given).fetchall())
        still = set(self._held())
        for fence in held:
            if fence not in kept and fence in still:
                self._lost(fence)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
