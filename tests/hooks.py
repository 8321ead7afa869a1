"""A webhook receiver that believes nothing: every delivery is checked with the reference Standard Webhooks library."""

from dataclasses import dataclass, field
from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.waiting import until
from tests.workers.receiver import Receiver


@dataclass
class Hooks:
    """What arrived at one URL. `secret` is what the registration answered, or what the callback was given."""

    receiver: Receiver
    secret: str = field(default="", repr=False)
    _verified: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where to deliver."""
        return self.receiver.url()

    def deliveries(self) -> list[dict[str, Any]]:
        """The events of all deliveries in order of arrival, repeats too. Raises when a signature is wrong.

        A signature is too old after five minutes: whoever listens for longer looks in between.
        """
        for received in self.receiver.received[len(self._verified) :]:
            self._verified.append(Webhook(self.secret).verify(received.body, received.headers))
        return list(self._verified)

    def events(self) -> dict[str, dict[str, Any]]:
        """The events by id, each once. A repeat with another body fails."""
        found: dict[str, dict[str, Any]] = {}
        for event in self.deliveries():
            assert found.setdefault(event["id"], event) == event, "one event id came with two bodies"
        return found

    async def arrived(self, count: int, type_: str | None = None, timeout_s: float = 30) -> list[dict[str, Any]]:
        """Wait for so many different events of a type (of any without one) and return them."""
        looked = -1

        async def there() -> bool:
            nonlocal looked
            if len(self.receiver.received) in (looked, 0):
                return False
            looked = len(self.receiver.received)
            return len(self._of(type_)) >= count

        if count:
            await until(there, f"{count} webhooks of type {type_ or 'any'}", timeout_s)
        return self._of(type_)

    def _of(self, type_: str | None) -> list[dict[str, Any]]:
        return [event for event in self.events().values() if type_ in (None, event["type"])]
