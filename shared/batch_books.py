"""The checks of the books on batches: their lines and these lines' numbers, job, row and files; `books` runs them."""

from collections.abc import Mapping

BATCHES: Mapping[str, str] = {
    "a job-based batch holds a credit for each line while it runs": """
        select j.id as job_id, j.status, j.calls_total, j.credits_held from jobs j
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) and j.is_batch and j.budget_mode = 'job_based'
           and j.status not in ('completed', 'failed', 'cancelled') and j.credits_held <> j.calls_total""",
    "a job-based batch is charged one credit for each line that completed": """
        select j.id as job_id, j.status, j.calls_completed, j.credits_charged, j.credits_lost, due.credits_due
          from jobs j cross join lateral (select
               case when j.status in ('completed', 'failed', 'cancelled') then j.calls_completed else 0 end
               as credits_due) due
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) and j.is_batch and j.budget_mode = 'job_based'
           and j.credits_charged + j.credits_lost <> due.credits_due""",
    "tokens by class and expired lines: lines sum to the batch": """
        with summed as (
            select j.id, coalesce(sum(c.prompt_tokens), 0) as prompt,
                   coalesce(sum(c.completion_tokens), 0) as completion,
                   coalesce(sum(c.cached_tokens), 0) as cached, coalesce(sum(c.reasoning_tokens), 0) as reasoning,
                   count(*) filter (where c.state = 'failed' and c.error_code = 'deadline_exceeded') as expired
              from jobs j left join calls c on c.job_id = j.id
             where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) and j.is_batch group by j.id
        )
        select j.id as job_id, j.prompt_tokens, s.prompt as lines_prompt_tokens,
               j.completion_tokens, s.completion as lines_completion_tokens,
               j.cached_tokens, s.cached as lines_cached_tokens,
               j.reasoning_tokens, s.reasoning as lines_reasoning_tokens,
               j.calls_expired, s.expired as lines_expired
          from jobs j join summed s using (id)
         where (j.prompt_tokens, j.completion_tokens, j.cached_tokens, j.reasoning_tokens, j.calls_expired)
            <> (s.prompt, s.completion, s.cached, s.reasoning, s.expired)""",
    "lines that ended are numbered without gaps": """
        select j.id as job_id, count(c.id) as ended, count(c.ended_number) as numbered,
               min(c.ended_number) as first_number, max(c.ended_number) as last_number
          from jobs j join calls c on c.job_id = j.id and c.state in ('completed', 'failed', 'cancelled')
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) and j.is_batch group by j.id
        having count(c.ended_number) <> count(c.id) or min(c.ended_number) <> 1
            or max(c.ended_number) <> count(c.id)""",
    "only lines that ended have a number": """
        select c.id as call_id, c.job_id, c.state, c.batched, c.ended_number from calls c
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s)) and c.ended_number is not null
           and (not c.batched or c.state not in ('completed', 'failed', 'cancelled'))""",
    "a batch and its calls are of one kind": """
        select c.id as call_id, c.job_id, c.batched, j.is_batch from calls c join jobs j on j.id = c.job_id
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s)) and c.batched <> j.is_batch""",
    "a batch has its job, and a job that is one its batch": """
        select coalesce(b.id, j.id) as batch_id, b.team_id, j.team_id as job_team_id, b.status, j.status as job_status
          from (select * from batches where not dry_run) b full join (select * from jobs where is_batch) j using (id)
         where (%(teams)s::text[] is null or coalesce(b.team_id, j.team_id) = any(%(teams)s))
           and (b.id is null or j.id is null or b.team_id <> j.team_id)""",
    "a batch whose job runs is checked, runs or is cancelled; one whose job ended is on its way to its end": """
        select b.id as batch_id, b.status, j.status as job_status from batches b join jobs j using (id)
         where (%(teams)s::text[] is null or b.team_id = any(%(teams)s))
           and case when j.status in ('completed', 'failed', 'cancelled')
                    then b.status in ('validating', 'in_progress')
                    else b.status not in ('validating', 'in_progress', 'cancelling') end""",
    "a batch ends as its job did": """
        select b.id as batch_id, b.status, j.status as job_status, j.failure_reason
          from batches b join jobs j using (id)
         where (%(teams)s::text[] is null or b.team_id = any(%(teams)s))
           and case b.status when 'completed' then j.status <> 'completed'
                                  and j.failure_reason is distinct from 'all_calls_failed'
                             when 'expired' then j.failure_reason is distinct from 'deadline_exceeded'
                             when 'failed' then j.status <> 'failed' or j.calls_total > 0
                             else false end""",
    "a batch that ran is final with its output file": """
        select b.id as batch_id, b.status, b.lines, j.calls_total, b.output_file_id
          from batches b join jobs j using (id)
         where (%(teams)s::text[] is null or b.team_id = any(%(teams)s))
           and (b.status in ('completed', 'expired', 'cancelled') and b.output_file_id is null
                or b.status <> 'failed' and j.calls_total > 0 and b.lines <> j.calls_total)""",
    "a batch shows only whole files": """
        select b.id as batch_id, f.id as file_id, f.status, f.purpose from batches b
          join files f on f.id in (b.output_file_id, b.error_file_id)
         where (%(teams)s::text[] is null or b.team_id = any(%(teams)s))
           and (f.status <> 'processed' or f.purpose <> 'batch_output' or f.team_id <> b.team_id)""",
    "a whole file has the bytes of its chunks": """
        select f.id as file_id, f.team_id, f.bytes, coalesce(sum(octet_length(c.bytes)), 0) as bytes_of_chunks
          from files f left join file_chunks c on c.file_id = f.id
         where (%(teams)s::text[] is null or f.team_id = any(%(teams)s)) and f.status = 'processed'
         group by f.id having f.bytes <> coalesce(sum(octet_length(c.bytes)), 0)""",
    "a batch ends in exactly one event": """
        select b.id as batch_id, b.status, count(e.id) as events from batches b
          join jobs j using (id)
          left join events e on e.job_id = b.id
               and e.type in ('batch.completed', 'batch.failed', 'batch.expired', 'batch.cancelled')
         where (%(teams)s::text[] is null or b.team_id = any(%(teams)s))
           and coalesce(b.completed_at, b.failed_at, b.expired_at, b.cancelled_at, app_now())
             > app_now() - interval '23 hours'
         group by b.id
        having count(e.id) <>
               (case when b.status in ('completed', 'failed', 'expired', 'cancelled') then 1 else 0 end)""",
}

LATE: Mapping[str, str] = {
    "no batch waits for somebody to check or finish it": """
        select b.id as batch_id, b.status, b.worker, b.lease_expires_at, app_now() as now from batches b
         where (%(teams)s::text[] is null or b.team_id = any(%(teams)s))
           and b.status in ('validating', 'finalizing', 'cancelling')
           and coalesce(b.lease_expires_at, b.cancelling_at, b.finalizing_at, b.created_at)
             < app_now() - interval '10 minutes'""",
}
