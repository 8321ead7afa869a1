"""Who waits for news of a team's event log: one look at Postgres per process for all of them.

Postgres -> one statement over all teams that are followed -> a bounded buffer per follower

A follower who is behind (he came late, or his buffer was full) reads the log by himself, page by page, until he is
level with the common look. Nobody's slowness costs another follower, or memory.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from api.waiting import woken
from shared import event_log, log, tasks
from shared.db import Database
from shared.event_log import Entry, Filter, Place, Slice

logger = log.get(__name__)

Read = Callable[[Place], Awaitable[Slice]]
"""The page of the log behind a place, as a follower wants it."""

LOOK_EVERY_S = 0.2
LOOK_APART_S = 0.03
"""However often we are told that there is news."""
DOWN_S = 1.0
MOST_ENTRIES = 100
MOST_CHARACTERS = 256 * 1024
"""In a follower's buffer; one entry may be longer."""
READ_AT_ONCE = 3
"""Followers that may read by themselves at a time: the process has few connections, and other work."""


class LogFollower:
    """One who follows a team's log from a place: he gets what he wants of it in order, each event once."""

    def __init__(self, watch: "LogWatch", team_id: str, wanted: Filter, place: Place, read: Read) -> None:
        self.team_id = team_id
        self.place = place
        """Behind the last event that he was given or that waits for him."""
        self.is_behind = True
        self._watch = watch
        self._wanted = wanted
        self._read = read
        self._waiting: deque[Entry] = deque()
        self._characters = 0
        self._woken = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether this process is closing."""
        return self._watch.is_closed

    async def take(self, timeout_s: float) -> list[Entry]:
        """What came since; empty when nothing did in this time, or after `wake`. Raises what reading the log raises."""
        if not self._waiting and self.is_behind and not self.is_over:
            return await self._catch_up()
        await woken(self._woken, 0 if self._waiting or self.is_over else timeout_s)
        found, self._waiting, self._characters = list(self._waiting), deque(), 0
        return found

    def wake(self) -> None:
        """Let `take` return."""
        self._woken.set()

    def leave(self) -> None:
        """Follow no more."""
        self._watch.forget(self)

    def put(self, entry: Entry) -> bool:
        """Keep an event until it is taken. False: there is no room, and he is behind now."""
        if entry.seq <= self.place.seq:
            return True
        if self._wanted.takes(entry):
            is_full = len(self._waiting) >= MOST_ENTRIES or self._characters + len(entry.body) > MOST_CHARACTERS
            if self._waiting and is_full:
                self.is_behind = True
                return False
            self._waiting.append(entry)
            self._characters += len(entry.body)
            self._woken.set()
        self.place = event_log.place_of(entry)
        return True

    async def _catch_up(self) -> list[Entry]:
        read_to = self._watch.read_to(self.team_id)
        async with self._watch.turn:
            found = await self._read(self.place)
        # All that the common look had given before this read was there to be read.
        end = found.end if found.has_more or found.end.seq >= read_to else Place(seq=read_to)
        self.place = end
        if not found.has_more and self._watch.read_to(self.team_id) <= end.seq:
            self.is_behind = False
            self._watch.join(self)
        return list(found.entries)


class _Team:
    """A team whose log is read for its followers, from behind `last`."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.followers: set[LogFollower] = set()


class LogWatch:
    """All followers of a process, and the one look at the log for them. look_every_s: when nothing is heard."""

    def __init__(self, db: Database, *, look_every_s: float = LOOK_EVERY_S) -> None:
        self.turn = asyncio.Semaphore(READ_AT_ONCE)
        self.is_closed = False
        self._db = db
        self._look_every_s = look_every_s
        self._teams: dict[str, _Team] = {}
        self._everyone: set[LogFollower] = set()
        self._any = asyncio.Event()
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def following(self) -> int:
        """How many follow a log, of whatever team."""
        return len(self._everyone)

    async def open(self) -> None:
        """Start looking, as soon as somebody follows."""
        self._task = asyncio.create_task(self._run(), name="log_watch")

    async def close(self) -> None:
        """Stop looking, and let everybody go."""
        self.is_closed = True
        for follower in self._everyone:
            follower.wake()
        if self._task is not None:
            await tasks.end([self._task])

    def follow(self, team_id: str, wanted: Filter, place: Place, read: Read) -> LogFollower:
        """Follow a team's log from a place on; the follower leaves in the end. read: for as long as he is behind."""
        follower = LogFollower(self, team_id, wanted, place, read)
        self._everyone.add(follower)
        return follower

    def forget(self, follower: LogFollower) -> None:
        """Look no more for this one."""
        self._everyone.discard(follower)
        team = self._teams.get(follower.team_id)
        if team is not None:
            team.followers.discard(follower)
            if not team.followers:
                del self._teams[follower.team_id]

    def join(self, follower: LogFollower) -> None:
        """Look for this one too, from where he is: he is level with the look at his team, if there is one."""
        team = self._teams.setdefault(follower.team_id, _Team(follower.place.seq))
        team.followers.add(follower)
        self._any.set()

    def read_to(self, team_id: str) -> int:
        """How far the team's log was looked at; 0 when nobody follows it."""
        team = self._teams.get(team_id)
        return 0 if team is None else team.last

    def look_soon(self) -> None:
        """There may be news."""
        self._told.set()

    async def _run(self) -> None:
        while True:
            await self._any.wait()
            if not self._teams:
                self._any.clear()
                continue
            try:
                goes_on = await self._look()
            except Exception as error:  # noqa: BLE001 - the next look tries again
                logger.warning("log_look_failed", error=type(error).__name__)
                await asyncio.sleep(DOWN_S)
            else:
                await self._pause(0 if goes_on else self._look_every_s)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(LOOK_APART_S)
        if seconds > 0:
            timer = asyncio.get_running_loop().call_later(seconds - LOOK_APART_S, self._told.set)
            await self._told.wait()
            timer.cancel()
        self._told.clear()

    async def _look(self) -> bool:
        """Give everybody what is new. Returns whether there is more."""
        asked = dict(self._teams)
        async with self._db.hot_statement() as tx:
            found = await event_log.news(tx, {team_id: team.last for team_id, team in asked.items()})
        counts: dict[str, int] = {}
        for entry in found:
            counts[entry.team_id] = counts.get(entry.team_id, 0) + 1
            team = asked[entry.team_id]
            team.last = entry.seq
            behind = [follower for follower in team.followers if not follower.put(entry)]
            team.followers.difference_update(behind)
        for team_id in counts:
            if team_id in self._teams and not self._teams[team_id].followers:
                del self._teams[team_id]
        return any(count >= event_log.NEWS for count in counts.values())
