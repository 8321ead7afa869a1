"""Rows a delivery needs: a team of its own, jobs, calls, endpoints and events."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, text, update

from shared import clock, credit_accounts, ids, outbox, tables, webhook_endpoints
from shared.events import Event
from shared.runtime import Runtime
from shared.signing import new_webhook_secret


@dataclass
class Rows:
    """One team's rows; secrets by the id of what they belong to."""

    rt: Runtime
    team_id: str = field(default_factory=lambda: f"team-{ids.new().hex}")
    secrets: dict[object, str] = field(default_factory=dict)

    def sealed(self, purpose: str, owner: object) -> bytes:
        self.secrets[owner] = new_webhook_secret()
        return self.rt.sealer.seal(self.secrets[owner], purpose=f"{purpose}:{owner}")

    async def create_team(self) -> None:
        async with self.rt.db.transaction() as tx:
            organization = f"org-{self.team_id}"
            await tx.execute(insert(tables.organizations).values(id=organization, name="Acme"))
            sealed = self.sealed("teams.callback_secret", self.team_id)
            await tx.execute(
                insert(tables.teams).values(
                    id=self.team_id, organization_id=organization, callback_secret_sealed=sealed
                )
            )
            await credit_accounts.open_account(tx, self.team_id, 0)

    async def endpoint(
        self, url: str = "https://a.example/", *, events: tuple[str, ...] = ("*",), active: bool = True
    ) -> UUID:
        id_ = ids.new()
        async with self.rt.db.transaction() as tx:
            await webhook_endpoints.create(
                tx, id_, self.team_id, url=url, events=events, active=active, description=None,
                secret_sealed=self.sealed("webhook_endpoints.secret", id_),
                auth_header_sealed=None, headers_sealed=None,
            )  # fmt: skip
        return id_

    async def job(
        self, callback: str | None = None, events: tuple[str, ...] = ("job.completed",), *, own_secret: bool = False
    ) -> UUID:
        id_ = ids.new()
        sealed = self.sealed("jobs.callback_secret", id_) if own_secret else None
        async with self.rt.db.transaction() as tx:
            await tx.execute(
                insert(tables.jobs).values(
                    id=id_, team_id=self.team_id, organization_id="org", job_type="test", callback_url=callback,
                    callback_events=list(events) if callback else [], callback_secret_sealed=sealed,
                )
            )  # fmt: skip
        return id_

    async def call(self, job_id: UUID, callback: str | None = None, *, own_secret: bool = False) -> UUID:
        id_ = ids.new()
        sealed = self.sealed("calls.callback_secret", id_) if own_secret else None
        async with self.rt.db.transaction() as tx:
            await tx.execute(
                insert(tables.calls).values(
                    id=id_, job_id=job_id, team_id=self.team_id, model="m", candidates=["m"],
                    deadline_at=text("app_now() + interval '1 hour'"), callback_url=callback,
                    callback_events=["call.completed"] if callback else [], callback_secret_sealed=sealed,
                )
            )  # fmt: skip
        return id_

    def event(self, type_: str = "job.completed", *, job_id: UUID | None = None, call_id: UUID | None = None) -> Event:
        return Event(
            id=ids.new(), type=type_, team_id=self.team_id, job_id=job_id, subject_id=call_id, sequence=None,
            at=clock.now(), data={},
        )  # fmt: skip

    async def record(self, *facts: Event) -> list[UUID]:
        """The deliveries that these events make, in the order of the events."""
        async with self.rt.db.transaction() as tx:
            await outbox.record(tx, facts)
            made = [fact.id for fact in facts]
            found = list(await tx.execute(select(tables.deliveries).where(tables.deliveries.c.event_id.in_(made))))
        return [row.id for row in sorted(found, key=lambda row: (made.index(row.event_id), row.id))]

    async def delivery(self, id_: UUID) -> Any:
        async with self.rt.db.statement() as tx:
            return (await tx.execute(select(tables.deliveries).where(tables.deliveries.c.id == id_))).one()

    async def attempts(self, id_: UUID) -> list[Any]:
        table = tables.delivery_attempts
        async with self.rt.db.statement() as tx:
            return list(await tx.execute(select(table).where(table.c.delivery_id == id_).order_by(table.c.number)))

    async def stored_endpoint(self, id_: UUID) -> Any:
        table = tables.webhook_endpoints
        async with self.rt.db.statement() as tx:
            return (await tx.execute(select(table).where(table.c.id == id_))).one()

    async def change(self, id_: UUID, **values: Any) -> None:
        """Change a delivery behind the noun's back: let time pass for it."""
        async with self.rt.db.transaction() as tx:
            await tx.execute(update(tables.deliveries).where(tables.deliveries.c.id == id_).values(**values))
