"""`Range` of a download (RFC 9110, 14): one range of bytes; several are answered with the whole."""

import re
from dataclasses import dataclass

from starlette.requests import Request

from shared.errors import WaybillError

BYTES = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)


class RangeNotSatisfiable(WaybillError):
    """The range that was asked for has no byte of the file."""

    status, code = 416, "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The file has {size} bytes: the range has none of them", headers={"Content-Range": f"bytes */{size}"}
        )


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bytes from start up to and not including stop."""

    start: int
    stop: int

    def of(self, size: int) -> str:
        """`Content-Range`, whose last byte is included."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def asked_range(request: Request, size: int, tag: str) -> Range | None:
    """The range that is asked for of so many bytes; None where the whole is to be sent. Raises RangeNotSatisfiable.

    tag: the strong entity tag of what is there; a client that goes on with something else (`If-Range`) gets the whole.
    """
    asked = BYTES.fullmatch(request.headers.get("range", ""))
    if asked is None or asked.group(1, 2) == ("", "") or request.headers.get("if-range", tag) != tag:
        return None
    first, last = asked.group(1, 2)
    if not first:
        start, stop = max(0, size - int(last)), size
    elif last and int(last) < int(first):
        return None
    else:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
    if start >= stop:
        raise RangeNotSatisfiable(size)
    return Range(start=start, stop=stop)
