"""Every Redis key and channel of ours: what it is, how long it lives, who owns it."""

from uuid import UUID

DRAMATIQ_NAMESPACE = "dramatiq"


def queue(name: str) -> str:
    """Dramatiq's list of waiting message ids of a queue. Owned by Dramatiq; read for its length and peeked at."""
    return f"{DRAMATIQ_NAMESPACE}:{name}"


def queue_messages(name: str) -> str:
    """Dramatiq's hash of a queue's messages by id, those that are taken too. Owned by Dramatiq; read for its length."""
    return f"{queue(name)}.msgs"


def epoch() -> str:
    """String, no expiry, set by the sweeper: missing means that Redis was emptied and every bell is lost."""
    return "waybill:v1:epoch"


def ended_channel() -> str:
    """Pub/sub channel: ids of calls and jobs that ended, comma-separated. All publish, the api listens."""
    return "waybill:v1:ended"


def cancel_channel() -> str:
    """Pub/sub channel: ids of calls to stop, comma-separated. Who ends a job or a call publishes, workers listen."""
    return "waybill:v1:cancel"


def chunks(call_id: UUID) -> str:
    """Stream: what a streamed call has said so far, ids `<attempt>-<chunk>`; owned by its worker, see shared/chunks.py.

    Lives until the call's deadline, then for `WAYBILL_STREAM_RETENTION_S` after its end.
    """
    return f"waybill:v1:chunks:{call_id.hex}"


def streams_bell(process: str) -> str:
    """Stream of one entry: wakes the reader of this api process, whose list of streams has changed; lives a minute."""
    return f"waybill:v1:streams_bell:{process}"


def request_log(team_id: str, key_id: UUID | None = None) -> str:
    """Sorted set: a member per counted request of a limited team or key, scored by Redis time in µs; lives 61 s."""
    return f"{_limit(team_id, key_id)}:requests"


def token_log(team_id: str, key_id: UUID | None = None) -> str:
    """Sorted set like `request_log`, of requests that reserved tokens; lives 61 s. Owned by limits."""
    return f"{_limit(team_id, key_id)}:tokens"


def tokens_taken(team_id: str, key_id: UUID | None = None) -> str:
    """Hash: the tokens of each id in `token_log`, and `total`, their sum; lives 61 s. Owned by limits."""
    return f"{_limit(team_id, key_id)}:tokens_taken"


def _limit(team_id: str, key_id: UUID | None) -> str:
    """A team and its keys share the hash tag: one script counts for all of them."""
    return f"waybill:v1:limit:{{{team_id}}}" + (f":key:{key_id.hex}" if key_id is not None else "")
