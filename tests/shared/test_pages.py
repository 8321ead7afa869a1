"""What a page says of how many there are in all."""

import pytest

from shared.pages import known_total


@pytest.mark.parametrize(
    ("shown", "offset", "total"), [(3, 0, 3), (3, 20, 23), (0, 0, 0), (10, 0, None), (10, 20, None), (0, 20, None)]
)
def test_a_page_that_is_not_full_knows_the_total(shown: int, offset: int, total: int | None):
    assert known_total(shown, limit=10, offset=offset) == total
