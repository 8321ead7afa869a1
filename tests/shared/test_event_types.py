"""What the names of a subscription or a filter mean."""

from shared import event_types


def test_names_mean_types_and_opt_in_types_only_exactly():
    assert event_types.matching(["job.*"]) == [
        "job.created", "job.started", "job.completed", "job.failed", "job.cancelled",
    ]  # fmt: skip
    assert event_types.matching(["*"]) == list(event_types.TYPES)
    assert event_types.matching(["webhook.*"]) == ["webhook.endpoint.disabled"]
    assert event_types.matching(["webhook.test", "job.progress"]) == ["job.progress", "webhook.test"]
    assert event_types.matching([]) == []
