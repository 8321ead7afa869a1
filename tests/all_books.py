"""What must be true of the books at every moment, asked in one statement.

Tests ask after many of their steps, and a trip for each of forty questions took longer than the steps.
"""

from shared.books import CHECKS

AREAS = ("money", "work", "usage", "outbox", "batches")
"""What `waybill doctor` asks for at every moment; the rest of its questions wait for a sweep."""


def broken(*areas: str) -> str:
    """A statement with the rows (area, check) of what is broken in these areas, of the teams `%(teams)s`."""
    return "\nunion all ".join(
        # Only the text of our own checks goes in.
        f"""select '{area}' as area, '{check.replace("'", "''")}' as "check" where exists ({sql})"""
        for area in areas
        for check, sql in CHECKS[area].items()
    )


EVERYTHING = broken(*AREAS)
