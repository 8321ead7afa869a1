"""What senders left when they were killed: their leases hold places of their queues, so they are ended at once.

A unit that starts does it: the one that the parent forks in place of a dead one, and the first after a restart. For
senders elsewhere nobody here can say that they are dead; their leases run out.
"""

import os
from pathlib import Path

from shared import deliveries, log
from shared.db import is_down
from shared.messages import Deliver
from shared.runtime import Runtime

logger = log.get(__name__)

NAMESPACE = Path("/proc/self/ns/pid")
HOST_NAMESPACE = 0xEFFFFFFC
"""The inode of the machine's own PID namespace."""


def place(host: str) -> str:
    """The part of a worker's name before its process id: where that id means one process. host: of this machine.

    Containers may share a host name and not their processes: a namespace of their own is named too.
    """
    try:
        namespace = NAMESPACE.stat().st_ino
    except OSError:
        return host
    return host if namespace == HOST_NAMESPACE else f"{host}/{namespace}"


async def free(rt: Runtime, name: str) -> int:
    """End the leases of dead senders of this place; how many queues have room again.

    name: of this unit, `<place>:<process id>`, which has claimed nothing yet: what it seems to hold is a namesake's.
    """
    try:
        async with rt.db.hot_statement() as tx:
            dead = [sender for sender in await deliveries.senders(tx) if sender == name or _is_dead(sender, name)]
            queues = await deliveries.free(tx, dead) if dead else []
    except Exception as error:
        if not is_down(error):
            raise
        logger.warning("dead_senders_hold_their_leases", error=type(error).__name__)
        return 0
    if queues:
        logger.warning("freed_of_dead_senders", senders=dead, queues=len(queues))
        rt.ring(Deliver(ids=tuple(queues)))
    return len(queues)


def _is_dead(sender: str, name: str) -> bool:
    here, _, process = sender.rpartition(":")
    if here != name.rpartition(":")[0] or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
