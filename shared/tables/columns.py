"""What the tables are made of: metadata with names for every constraint, and columns that recur."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, DateTime, Integer, MetaData, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

QUEUE_STORAGE: dict[str, Any] = {"postgresql_with": {"fillfactor": "70"}}
"""Rows that change state in place: room for HOT updates."""


def time(name: str, *, required: bool = False, default: bool = False) -> Column[Any]:
    """A point in time; aware, UTC. default: the database's now."""
    return Column(
        name,
        DateTime(timezone=True),
        nullable=not (required or default),
        server_default=text("app_now()") if default else None,
    )


def count(name: str, type_: type[Integer | BigInteger] = Integer) -> Column[Any]:
    """A counter that starts at 0."""
    return Column(name, type_, nullable=False, server_default="0")


def flag(name: str, *, default: bool = False) -> Column[Any]:
    """A yes or no."""
    return Column(name, Boolean, nullable=False, server_default="true" if default else "false")


def words(name: str, *, required: bool = True) -> Column[Any]:
    """A list of words; empty unless said otherwise."""
    return Column(name, ARRAY(Text), nullable=not required, server_default="{}" if required else None)


def one_of(column: str, words: Iterable[str], name: str) -> CheckConstraint:
    """The column holds one of these words."""
    return CheckConstraint(f"{column} in ({', '.join(repr(str(word)) for word in words)})", name=name)


def state(column: str, enum: type[StrEnum]) -> CheckConstraint:
    """The column holds a state of this enum."""
    return one_of(column, enum, column)


def metadata_column() -> Column[Any]:
    """What a client keeps with the row."""
    return Column("metadata", JSONB, nullable=False, server_default="{}")
