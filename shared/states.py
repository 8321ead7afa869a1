"""The states of jobs, calls, attempts and deliveries; `docs/states.md` draws them, CHECK constraints hold them."""

from enum import StrEnum


class JobStatus(StrEnum):
    """`pending → in_progress → completed | failed | cancelled`; the last three are final."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CallState(StrEnum):
    """`pending → in_progress → completed | failed | cancelled`, back to pending for a retry or a lost lease."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Endpoint(StrEnum):
    """What a call asks of its model, and so the form of its request and of its answer."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"

    @property
    def path(self) -> str:
        """Where it is asked for, as OpenAI's clients name it."""
        return PATHS[self]


class BatchStatus(StrEnum):
    """`validating → in_progress → finalizing → completed | expired`; also `validating → failed`, and by way of
    `cancelling` to `cancelled`.
    """

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


FINAL_BATCHES = (BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)


class FilePurpose(StrEnum):
    """What a file is for."""

    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"


class FileStatus(StrEnum):
    """`uploading → processed`: nobody sees a file before all of it is there."""

    UPLOADING = "uploading"
    PROCESSED = "processed"


class Outcome(StrEnum):
    """How an attempt ended; `unknown` and `abandoned` may have been billed to us."""

    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    ABANDONED = "abandoned"


class DeliveryState(StrEnum):
    """`pending → delivered`, `pending → failing → delivered | exhausted`; `aborted` and `discarded` ended otherwise."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILING = "failing"
    EXHAUSTED = "exhausted"
    ABORTED = "aborted"
    DISCARDED = "discarded"


class ReplayState(StrEnum):
    """A replay is `running` while it still makes deliveries."""

    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


PATHS = {
    Endpoint.CHAT: "/v1/chat/completions",
    Endpoint.COMPLETION: "/v1/completions",
    Endpoint.EMBEDDING: "/v1/embeddings",
}
FINAL = ("completed", "failed", "cancelled")
"""Final words of jobs and calls; the same three for both."""
DUE_DELIVERY = ("pending", "failing")
