"""Whatever is done in whatever order, a team's and its keys' limits answer as a plain model of them does."""

import asyncio
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from shared.limits import Limits, Taken, give_back, settle_tokens, take
from shared.runtime import redis_client
from tests.shared.limit_subjects import KEYS, Bounds, both, pass_time, refusal


@dataclass
class Entry:
    age_s: int
    tokens: int


@dataclass
class Model:
    """The limits of one subject, said plainly: everything counted in the last 60 s, in a dict."""

    rpm: int | None
    tpm: int | None
    counted: dict[str, Entry] = field(default_factory=dict)

    def refuses(self, requests: list[tuple[str, int]]) -> set[str]:
        asked, reserved = sum(tokens for _, tokens in requests), sum(e.tokens for e in self.counted.values())
        found = set()
        if self.rpm is not None and len(self.counted) + len(requests) > self.rpm:
            found.add("requests")
        if self.tpm is not None and asked and reserved + asked > self.tpm:
            found.add("tokens")
        return found

    def age(self, seconds: int) -> None:
        older = {id_: Entry(entry.age_s + seconds, entry.tokens) for id_, entry in self.counted.items()}
        self.counted = {id_: entry for id_, entry in older.items() if entry.age_s < 60}


# 7 s steps never come within 3 s of a window's end, so the seconds that a run itself takes change nothing.
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("take"), st.tuples(st.sampled_from(KEYS), st.lists(st.integers(0, 40), min_size=1, max_size=3))
        ),
        st.tuples(st.just("age"), st.sampled_from([7, 21, 63])),
        st.tuples(st.just("give_back"), st.integers(0, 9)),
        st.tuples(st.just("settle"), st.tuples(st.integers(0, 9), st.integers(0, 80))),
    ),
    max_size=25,
)
BOUNDS = st.tuples(
    st.one_of(st.none(), st.integers(0, 6)),
    st.one_of(st.none(), st.integers(0, 150)),
)


@dataclass
class Twins:
    """A team with two keys, in Redis and as models; each step is done to both and the answers are compared."""

    redis: Redis
    of: Bounds
    key: Bounds
    team: str = field(default_factory=lambda: str(uuid4()))
    taken: list[tuple[UUID, Taken]] = field(default_factory=list)

    def __post_init__(self):
        self.models = {None: Model(*self.of), **{key_id: Model(*self.key) for key_id in KEYS}}

    def subjects(self, key_id: UUID) -> list[Limits]:
        return both(of=self.of, key=self.key, key_id=key_id, team=self.team)

    async def take(self, key_id: UUID, tokens: list[int]) -> None:
        requests = [(str(uuid4()), each) for each in tokens]
        models = self.models[None], self.models[key_id]
        refusing = models[0].refuses(requests) | models[1].refuses(requests)
        if refusing:
            error = await refusal(self.redis, self.subjects(key_id), requests)
            assert error.headers["rate_limit_type"] == ("requests" if "requests" in refusing else "tokens")
            return
        taken = await take(self.redis, self.subjects(key_id), requests=requests)
        self.taken.append((key_id, taken))
        for model in models:
            model.counted |= {id_: Entry(0, tokens) for id_, tokens in requests}
        left = [str(model.rpm - len(model.counted)) for model in models if model.rpm is not None]
        if left:
            assert taken.headers["X-RateLimit-Remaining"] == min(left, key=int)

    async def give_back(self, n: int) -> None:
        _, taken = self.taken[n]
        await give_back(self.redis, taken)
        for model in self.models.values():
            model.counted = {id_: entry for id_, entry in model.counted.items() if id_ not in taken.ids}

    async def settle(self, n: int, tokens: int) -> None:
        key_id, taken = self.taken[n]
        await settle_tokens(self.redis, self.subjects(key_id), taken.ids[0], tokens)
        for model in (self.models[None], self.models[key_id]):
            entry = model.counted.get(taken.ids[0])
            if entry and entry.tokens:
                entry.tokens = tokens

    async def age(self, seconds: int) -> None:
        await pass_time(self.redis, seconds, self.team)
        for model in self.models.values():
            model.age(seconds)


async def replay(url: str, of: Bounds, key: Bounds, steps: list) -> None:
    async with redis_client(url) as redis:
        twins = Twins(redis, of, key)
        for step, argument in steps:
            if step == "take":
                await twins.take(*argument)
            elif step == "age":
                await twins.age(argument)
            elif step == "give_back" and argument < len(twins.taken):
                await twins.give_back(argument)
            elif step == "settle" and argument[0] < len(twins.taken):
                await twins.settle(*argument)


@given(of=BOUNDS, key=BOUNDS, steps=STEPS)
@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_steps_answers_as_the_exact_model_does(redis_url: str, of, key, steps):
    asyncio.run(replay(redis_url, of, key, steps))
