"""Asking for calls as a client that waits for its answer does."""

from typing import Any

import httpx

from tests.scene import HELLO, Team


async def ask(team: Team, job_id: str, **fields: Any) -> httpx.Response:
    """The answer of a call of this job."""
    return await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO, **fields})
