"""Pages of lists: what one of them says of the whole."""


def known_total(shown: int, *, limit: int, offset: int) -> int | None:
    """How many there are in all where a page of `shown` rows tells it, as one that is not full does; else None."""
    return offset + shown if 0 < shown < limit or shown == offset == 0 else None
