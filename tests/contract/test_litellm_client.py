"""litellm as a client: it knows us as a proxy of its own kind and as anything that speaks OpenAI's dialect."""

from pathlib import Path

from tests.contract import sdk_child
from tests.contract.sdk_accounts import world_of
from tests.contract.sdk_child import LINES
from tests.invariants import verify
from tests.stack import Stack


async def test_litellm_works_as_a_client(stack: Stack, tmp_path: Path) -> None:
    world = await world_of(stack, tmp_path)

    printed = await sdk_child.run(LINES[0], world, tmp_path, ("sdk_litellm.py",))

    assert "passed" in printed
    await verify(stack)
