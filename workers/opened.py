"""Secrets opened lately: a busy endpoint's are not opened anew for every delivery."""

from collections import OrderedDict

from shared.sealer import Sealer

MOST_KEPT = 1024


class Opened:
    """Opens sealed values and keeps the last MOST_KEPT. Raises CannotOpen as the sealer does."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._kept: OrderedDict[tuple[bytes, str], str] = OrderedDict()

    def open(self, sealed: bytes, purpose: str) -> str:
        """The secret; purpose as `Sealer.open` takes it."""
        key = (bytes(sealed), purpose)
        secret = self._kept.get(key)
        if secret is not None:
            self._kept.move_to_end(key)
            return secret
        secret = self._kept[key] = self._sealer.open(key[0], purpose=purpose)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return secret
