"""A database connection whose path still acknowledges what it is sent, and from which no word comes any more."""

import os
import socket
from contextlib import suppress
from typing import Any

import psycopg


def hang_up(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """End the path from this side: whoever waits for an answer on it gets an OperationalError at once.

    Safe from another thread as long as nobody closes the connection meanwhile. Psycopg has no limit of its own on an
    answer, and one that is cancelled is waited for ten seconds more.
    """
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as path,
    ):
        path.shutdown(socket.SHUT_RDWR)
