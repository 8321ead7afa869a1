"""What the streams of the benchmark are asked, and how the demo provider is told to answer them."""

import re
from dataclasses import dataclass
from typing import Any

import orjson

ALIAS = "bench-stream"
MODEL = "gpt-4"
STAMPED = re.compile(rb'"content":" ?(\d+\.\d+)\|(\d+)"')


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One sort of stream. every_s: between two chunks at the provider; 0: as fast as the reader takes them."""

    name: str
    chunks: int
    every_s: float

    @property
    def seconds(self) -> float:
        """How long the provider takes for one."""
        return self.chunks * self.every_s

    def script(self) -> dict[str, Any]:
        """For `/_control/script`: each chunk is the time it was sent and its number."""
        text = " ".join(f"{{now}}|{number}" for number in range(self.chunks))
        step = {"say": {"text": text}, "stream": {"every_s": self.every_s}}
        return {"match": self.name, "steps": [step], "repeat": True}

    def body(self, model: str) -> dict[str, Any]:
        """The request, with usage as any careful client asks for it."""
        messages = [{"role": "user", "content": f"A {self.name} stream, please."}]
        return {
            "model": model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def sent_body(self) -> bytes:
        """The same for Waybill."""
        return orjson.dumps(self.body(ALIAS))


QUICK = Kind(name="quick", chunks=100, every_s=0)
PACED = Kind(name="paced", chunks=100, every_s=0.02)
SHORT = Kind(name="short", chunks=10, every_s=0.01)
LONG = Kind(name="long", chunks=30, every_s=1)
KINDS = {kind.name: kind for kind in (QUICK, PACED, SHORT, LONG)}


def apart_s(kind: Kind | None, clients: int) -> float:
    """How far apart the clients begin: evenly over one stream, or all would ask in the same moment again and again."""
    return 0.0 if kind is None else kind.seconds / clients
