"""What one transaction adds to the usage of a day: which row a call, a job or a cost is counted in."""

from uuid import UUID

from shared.calls import Call
from shared.jobs import Job
from shared.rollup import NO_KEY, Measures, UsageKey, day
from shared.unfinished_calls import LineGroup


class UsageSums(dict[UsageKey, Measures]):
    """A job is counted in the row without a model, a call in the row of its last attempt's provider (empty: none)."""

    def count_job(self, job: Job) -> None:
        """The job became final."""
        self._add(job, {f"jobs_{job.status}": 1, "credits_charged": job.credits_charged})

    def count_call(self, job: Job, call: Call) -> None:
        """The call of this job became final."""
        measures = {
            f"calls_{call.state}": 1,
            "prompt_tokens": call.prompt_tokens or 0,
            "completion_tokens": call.completion_tokens or 0,
            "client_cost_nanousd": call.client_cost_nanousd,
            "latency_sum_ms": call.latency_ms or 0 if call.state == "completed" else 0,
        }
        self._add(job, measures, model=call.model, provider=call.provider, key_id=call.key_id)

    def count_unrun(self, job: Job, state: str, lines: LineGroup) -> None:
        """These lines of this batch became final without a result."""
        self._add(job, {f"calls_{state}": lines.lines}, model=lines.model, provider=lines.provider, key_id=lines.key_id)

    def book(self, job: Job, model: str, key_id: UUID | None, provider: str | None, nanousd: int) -> None:
        """An attempt at this provider cost so much (more)."""
        self._add(job, {"provider_cost_nanousd": nanousd}, model=model, provider=provider, key_id=key_id)

    def _add(
        self,
        job: Job,
        measures: dict[str, int],
        *,
        model: str = "",
        provider: str | None = None,
        key_id: UUID | None = None,
    ) -> None:
        key = UsageKey(
            team_id=job.team_id,
            day=day(job.created_at),
            job_type=job.job_type,
            model=model,
            provider=provider or "",
            key_id=key_id or NO_KEY,
        )
        self.setdefault(key, Measures()).update(measures)
