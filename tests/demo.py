"""The demo provider of a stack, from the test's side: what it shall do wrong, and what it was asked."""

from pathlib import Path
from typing import Any

import httpx
import orjson

Step = dict[str, Any]

DISCONNECTED = "disconnected"


class DemoProvider:
    """Speaks to `/_control` and reads the ground truth. match: part of the last user message or of the model's name."""

    def __init__(self, client: httpx.AsyncClient, ground_truth: Path) -> None:
        self._client = client
        self._ground_truth = ground_truth

    async def script(self, *steps: Step, match: str | None = None, repeat: bool = False) -> None:
        """The next requests that match take these steps, such as {"fault": "status", "status": 429}.

        All that a step can say and do wrong is in docs/demo-provider.md.
        """
        await self._post("script", {"match": match, "steps": list(steps), "repeat": repeat})

    async def delay(self, seconds: float, *, chunk_seconds: float = 0) -> None:
        """Every answer takes this long from now on, and each chunk of a stream comes so long after the one before."""
        await self._post("delay", {"seconds": seconds, "chunk_seconds": chunk_seconds})

    async def hold(self, match: str | None = None) -> None:
        """Answers that match wait for `release`."""
        await self._post("hold", {"match": match})

    async def release(self) -> None:
        """All held answers go on, those held by a step in the middle of their stream too."""
        await self._post("release", {})

    async def reset(self) -> None:
        """No script, no hold, no delay, an empty log."""
        await self._post("reset", {})

    async def asked(self, match: str, count: int = 1, *, outcome: str | None = None, timeout_s: float = 20) -> None:
        """Wait until so many requests came (or have this outcome: held, answered, disconnected, cut)."""
        wanted: dict[str, str | float] = {"match": match, "count": count, "timeout": timeout_s}
        if outcome is not None:
            wanted["outcome"] = outcome
        answer = await self._client.get("/_control/wait", params=wanted, timeout=timeout_s + 10)
        found = answer.raise_for_status().json()
        assert found["reached"], f"the provider saw {found['count']} of {count} requests with {match!r} {outcome or ''}"

    async def requests(self, match: str) -> list[dict[str, Any]]:
        """The log of requests that match, oldest first."""
        answer = await self._client.get("/_control/requests", params={"match": match})
        found: list[dict[str, Any]] = answer.raise_for_status().json()["requests"]
        return found

    async def count(self, match: str) -> int:
        """How many requests match."""
        return len(await self.requests(match))

    async def chunks_sent(self, match: str) -> list[int]:
        """How many events of its stream each request that matches was sent."""
        return [request["chunks"] for request in await self.requests(match)]

    def executions(self) -> list[str]:
        """The `<call>.<attempt>` of every request that ever came, in order, also of a provider killed since."""
        lines = self._ground_truth.read_bytes().splitlines() if self._ground_truth.exists() else []
        return [orjson.loads(line)["client_request_id"] or "" for line in lines]

    async def _post(self, name: str, body: dict[str, Any]) -> None:
        (await self._client.post(f"/_control/{name}", json=body)).raise_for_status()
