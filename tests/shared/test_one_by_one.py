"""Work on many rows: one that cannot be done is left, a database that is away stops all."""

from collections.abc import Sequence

import pytest
from psycopg.errors import AdminShutdown, CheckViolation, LockNotAvailable, QueryCanceled

from shared import one_by_one


@pytest.mark.parametrize("error", [CheckViolation, LockNotAvailable, QueryCanceled, TimeoutError, LookupError])
async def test_what_one_of_them_cannot_do_is_left_and_the_others_are_done(error: type[Exception]):
    done: list[int] = []

    async def work(items: Sequence[int]) -> int:
        if 2 in items:
            raise error
        done.extend(items)
        return len(items)

    async def alone(item: int) -> int:
        return await work([item])

    assert await one_by_one.each([1, 2, 3], alone, what="test") == 2
    assert await one_by_one.together([4, 2, 5], work, what="test") == 2
    assert await one_by_one.together([6, 7], work, what="test") == 2
    assert done == [1, 3, 4, 5, 6, 7]


async def test_nothing_is_tried_again_at_a_database_that_is_away():
    tried: list[object] = []

    async def work(item: object) -> int:
        tried.append(item)
        raise AdminShutdown

    with pytest.raises(AdminShutdown):
        await one_by_one.each([1, 2], work, what="test")
    with pytest.raises(AdminShutdown):
        await one_by_one.together([3, 4], work, what="test")
    assert tried == [1, [3, 4]]
