"""The checks of the books on events and deliveries; `books` runs them.

What retention deletes is not missed: events are kept for a day at least, deliveries for five. Of what is older, only
that is asked for which is younger than the oldest event that is kept.
"""

from collections.abc import Mapping

from shared.sql_terms import EVENT_NAMES

# An event that is still to be sent outlives the others: it does not say since when events are kept.
KEPT = """
kept as (
    select least(app_now() - interval '23 hours', (
           select e.created_at from events e
            where not exists (select from deliveries d
                               where d.event_id = e.id and d.state in ('pending', 'failing'))
            order by e.seq limit 1) + interval '1 hour') as since
)"""

DELIVERIES_KEPT = "app_now() - interval '119 hours'"

NAMES = f"({EVENT_NAMES.format('e.type')})"

UNSEEN_S = 2
"""From the statement that makes an endpoint active to its commit: events recorded meanwhile do not see it."""

OUTBOX: Mapping[str, str] = {
    "a call ends in exactly one event, a line of a batch in one or none": f"""
        with {KEPT}
        select c.id as call_id, c.state, count(e.id) as events from calls c cross join kept
          left join events e on e.subject_id = c.id and e.job_id = c.job_id
               and e.type in ('call.completed', 'call.failed', 'call.cancelled')
         where (%(teams)s::text[] is null or c.team_id = any(%(teams)s))
           and (c.completed_at is null or c.completed_at > kept.since) group by c.id
        having count(e.id) > 1 or (count(e.id) = 1) <> (c.state in ('completed', 'failed', 'cancelled'))
           and not (c.batched and c.state in ('completed', 'failed', 'cancelled'))""",
    "a job ends in exactly one event": f"""
        with {KEPT}
        select j.id as job_id, j.status, count(e.id) as events from jobs j cross join kept
          left join events e on e.job_id = j.id and e.type in ('job.completed', 'job.failed', 'job.cancelled')
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s))
           and (j.completed_at is null or j.completed_at > kept.since) group by j.id
        having count(e.id) <> (case when j.status in ('completed', 'failed', 'cancelled') then 1 else 0 end)""",
    "events of a job are numbered without gaps": f"""
        with {KEPT}
        select j.id as job_id, j.event_sequence, count(e.id) as events, min(e.sequence) as first_sequence,
               max(e.sequence) as last_sequence
          from jobs j cross join kept left join events e on e.job_id = j.id
         where (%(teams)s::text[] is null or j.team_id = any(%(teams)s)) and j.created_at > kept.since group by j.id
        having count(e.id) <> j.event_sequence or max(e.sequence) <> j.event_sequence or min(e.sequence) <> 1""",
    "no progress is told after the end of its job": """
        select e.id as event_id, e.job_id, e.sequence, f.type, f.sequence as final_sequence
          from events e join events f on f.job_id = e.job_id and f.sequence < e.sequence
         where (%(teams)s::text[] is null or e.team_id = any(%(teams)s)) and e.type = 'job.progress'
           and f.type in ('job.completed', 'job.failed', 'job.cancelled')""",
    "an event has a delivery for each endpoint that wants it": f"""
        select e.id as event_id, e.type, w.id as endpoint_id from events e join webhook_endpoints w using (team_id)
         where (%(teams)s::text[] is null or e.team_id = any(%(teams)s)) and e.created_at > {DELIVERIES_KEPT}
           and w.events && {NAMES} and w.status = 'active'
           and w.active_since < e.created_at - interval '{UNSEEN_S} seconds'
           and not exists (select 1 from deliveries d where d.event_id = e.id and d.endpoint_id = w.id)""",
    "an event has a delivery for each callback that wants it": f"""
        select e.id as event_id, e.type, t.callback, t.url from events e
          cross join lateral (
               select 'job' as callback, j.callback_url as url, j.callback_events as wanted
                 from jobs j where j.id = e.job_id
                union all
               select 'call', c.callback_url, c.callback_events from calls c where c.id = e.subject_id) t
         where (%(teams)s::text[] is null or e.team_id = any(%(teams)s)) and e.created_at > {DELIVERIES_KEPT}
           and t.url is not null and t.wanted && {NAMES}
           and not exists (select 1 from deliveries d where d.event_id = e.id and d.callback = t.callback)""",
    "a delivery that waits has its event, or is an example with its own body": """
        select d.id as delivery_id, d.event_id, d.trigger, d.state from deliveries d
         where (%(teams)s::text[] is null or d.team_id = any(%(teams)s)) and d.state in ('pending', 'failing')
           and case when d.trigger = 'test' then d.body is null
                    else not exists (select from events e where e.id = d.event_id) end""",
    "a delivery is delivered by an attempt that got a 2xx": f"""
        select d.id as delivery_id, d.attempt_count, d.last_status from deliveries d
         where (%(teams)s::text[] is null or d.team_id = any(%(teams)s)) and d.state = 'delivered'
           and d.created_at > {DELIVERIES_KEPT}
           and not exists (select from delivery_attempts a
                            where a.delivery_id = d.id and a.status_code between 200 and 299)""",
    "a delivery that was tried belongs to a queue": """
        select d.id as delivery_id, d.queue_id, d.attempt from deliveries d
         where (%(teams)s::text[] is null or d.team_id = any(%(teams)s)) and d.attempt > 0
           and not exists (select from delivery_queues q where q.id = d.queue_id)""",
    "a delivery of an endpoint is its team's": """
        select d.id as delivery_id, d.team_id, w.team_id as endpoint_team_id
          from deliveries d join webhook_endpoints w on w.id = d.endpoint_id
         where (%(teams)s::text[] is null or d.team_id = any(%(teams)s)) and d.team_id <> w.team_id""",
}

# A circuit that is open, a lease and tokens that were just spent say that a queue is worked on.
LATE: Mapping[str, str] = {
    "no queue of deliveries stands still": """
        select d.queue_id, min(d.next_attempt_at) as due_since, count(*) as deliveries, app_now() as now
          from deliveries d
          left join delivery_queues q on q.id = d.queue_id
          left join webhook_endpoints w on w.id = d.endpoint_id
         where (%(teams)s::text[] is null or d.team_id = any(%(teams)s))
           and d.state in ('pending', 'failing') and d.next_attempt_at < app_now() - interval '10 minutes'
           and (d.trigger = 'test' or w.status is null or w.status = 'active')
           and (q.open_until is null or q.open_until < app_now() - interval '10 minutes')
           and (q.refilled_at is null or q.refilled_at < app_now() - interval '10 minutes')
           and not exists (select from deliveries l where l.queue_id = d.queue_id
                              and l.state in ('pending', 'failing') and l.lease_expires_at > app_now())
         group by d.queue_id""",
    "nothing waits for an endpoint that is disabled": """
        select d.id as delivery_id, d.endpoint_id, d.state, w.disabled_reason, w.disabled_at, w.deleted_at
          from deliveries d join webhook_endpoints w on w.id = d.endpoint_id
         where (%(teams)s::text[] is null or d.team_id = any(%(teams)s))
           and d.state in ('pending', 'failing') and d.trigger <> 'test' and w.status = 'disabled'
           and coalesce(w.deleted_at, w.disabled_at, w.updated_at) < app_now() - interval '10 minutes'""",
}
