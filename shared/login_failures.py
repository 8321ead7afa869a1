"""Failed logins, counted by e-mail address and by network address, so that nobody can guess passwords at speed."""

from shared import ids
from shared.db import Tx, hot

MOST = 5
WINDOW_S = 15 * 60

# Every login takes the lock of its e-mail address first and that of its network address second: no circle can form.
LOCK = """
select pg_advisory_xact_lock(hashtextextended('waybill login email ' || %s, 0)) as email,
       pg_advisory_xact_lock(hashtextextended('waybill login address ' || %s, 1)) as address
"""

# The fifth newest failure within the window keeps the door shut until it leaves the window.
WAIT = """
select coalesce(ceil(extract(epoch from max(until - app_now()))), 0)::int as wait_s
  from ((select created_at + make_interval(secs => %(window_s)s) as until
           from login_failures
          where email = %(email)s and created_at > app_now() - make_interval(secs => %(window_s)s)
          order by created_at desc offset %(most)s - 1 limit 1)
        union all
        (select created_at + make_interval(secs => %(window_s)s)
           from login_failures
          where ip_address = %(ip_address)s and created_at > app_now() - make_interval(secs => %(window_s)s)
          order by created_at desc offset %(most)s - 1 limit 1)) as shut
"""

RECORD = "insert into login_failures (id, email, ip_address) values (%s, %s, %s)"

DELETE_OLD = """
delete from login_failures where id in (
     select id from login_failures where created_at <= app_now() - make_interval(secs => %s)
      limit %s for update skip locked)
returning id
"""


async def lock(tx: Tx, email: str, ip_address: str) -> None:
    """Let logins with this e-mail address or from this network address decide one after the other."""
    await hot(tx, LOCK, (email, ip_address))


async def wait_s(tx: Tx, email: str, ip_address: str) -> int:
    """For how many seconds logins are refused; 0 when they are not."""
    asked = {"email": email, "ip_address": ip_address, "window_s": WINDOW_S, "most": MOST}
    [row] = await hot(tx, WAIT, asked)
    return int(row.wait_s)


async def record(tx: Tx, email: str, ip_address: str) -> None:
    """Count one."""
    await hot(tx, RECORD, (ids.new(), email, ip_address))


async def delete_old(tx: Tx, *, limit: int) -> int:
    """Delete those that no longer count. Returns how many."""
    return len(await hot(tx, DELETE_OLD, (WINDOW_S, limit)))
