"""Passwords of admin users: argon2id, in threads of their own, so that the event loop never waits for it."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Annotated, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import AfterValidator

from shared.errors import Unavailable

MIN_CHARACTERS = 8
MAX_BYTES = 1024
AT_ONCE = 2
MOST_WAITING = 100
"""About two seconds of work; more is turned away, since logins need no credential."""

# 19 MiB, two passes, one lane: the least that OWASP recommends for argon2id; some 20 ms of one core.
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)

Result = TypeVar("Result")


def _checked(password: str) -> str:
    if len(password) < MIN_CHARACTERS:
        raise ValueError(f"must be {MIN_CHARACTERS} characters or more")
    return _bounded(password)


def _bounded(password: str) -> str:
    if len(password.encode()) > MAX_BYTES:
        raise ValueError(f"must be {MAX_BYTES} bytes or less")
    return password


NewPassword = Annotated[str, AfterValidator(_checked)]
GivenPassword = Annotated[str, AfterValidator(_bounded)]


class Passwords:
    """Hashes and checks, a few at once."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """What is stored instead of it. Raises Unavailable."""
        return await self._run(lambda: HASHER.hash(password))

    async def is_right(self, password: str, stored: str | None) -> bool:
        """Whether it is the one that was stored; takes as long when nothing was. Raises Unavailable."""
        return await self._run(lambda: _matches(password, stored or _nobody())) and stored is not None

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= MOST_WAITING:
            raise Unavailable
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


passwords = Passwords()


def _matches(password: str, stored: str) -> bool:
    try:
        return HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _nobody() -> str:
    return HASHER.hash(secrets.token_urlsafe(32))
