"""Model aliases, the ordered groups through which teams hold them, and the secrets we use with providers."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from shared.tables.columns import flag, metadata, one_of, time, words

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("alias", Text, primary_key=True),
    Column("litellm_model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("actual_model", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text),
    flag("active", default=True),
    words("fallbacks"),
    Column("input_nanousd_per_mtok", BigInteger),
    Column("output_nanousd_per_mtok", BigInteger),
    Column("cached_input_nanousd_per_mtok", BigInteger),
    flag("allow_unpriced"),
    Column("on_unknown", Text, nullable=False, server_default="retry"),
    Column("max_output_tokens", Integer),
    Column("credential_name", Text),
    Column("api_base", Text),
    Column("api_key_sealed", LargeBinary),
    time("created_at", default=True),
    time("updated_at", default=True),
    one_of("on_unknown", ("retry", "fail"), "on_unknown"),
)

model_access_groups = Table(
    "model_access_groups",
    metadata,
    Column("group_name", Text, primary_key=True),
    Column("id", Uuid, nullable=False, unique=True, server_default=text("uuid7()")),
    Column("display_name", Text, nullable=False),
    Column("description", Text),
    Column("status", Text, nullable=False, server_default="active"),
    time("created_at", default=True),
    time("updated_at", default=True),
    one_of("status", ("active", "inactive"), "status"),
)

model_access_group_members = Table(
    "model_access_group_members",
    metadata,
    Column("group_name", Text, ForeignKey("model_access_groups.group_name", ondelete="CASCADE"), primary_key=True),
    Column("alias", Text, ForeignKey("model_aliases.alias", ondelete="CASCADE"), primary_key=True, index=True),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("position", Integer, nullable=False, server_default="0"),
    Column("id", Uuid, nullable=False, server_default=text("uuid7()")),
    time("created_at", default=True),
)

team_access_groups = Table(
    "team_access_groups",
    metadata,
    Column("team_id", Text, ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True),
    Column("group_name", Text, ForeignKey("model_access_groups.group_name"), primary_key=True, index=True),
    Column("position", Integer, nullable=False, server_default="0"),
)

# A provider at one address, one of its models, asked with one key: what fails together. Without a row all is well.
provider_circuits = Table(
    "provider_circuits",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("litellm_model", Text, primary_key=True),
    Column(
        "credential",
        Text,
        primary_key=True,
        comment="its id, or the alias that has a key of its own; empty: the environment's",
    ),
    Column("failures", Integer, nullable=False, comment="in a row"),
    time("failed_at", required=True),
    Column("opened_at", DateTime(timezone=True), comment="null: closed"),
    Column("open_until", DateTime(timezone=True), comment="from then on half open"),
    time("probed_at"),
    CheckConstraint("(opened_at is null) = (open_until is null)", name="open_until_some_time"),
)

provider_credentials = Table(
    "provider_credentials",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("credential_name", Text, nullable=False),
    Column("api_base", Text),
    Column("api_key_sealed", LargeBinary, nullable=False),
    Column("key_hint", Text, nullable=False),
    flag("is_active", default=True),
    Column("created_by", Text),
    Column("updated_by", Text),
    time("created_at", default=True),
    time("updated_at", default=True),
    UniqueConstraint("organization_id", "credential_name"),
    Index(
        "uq_provider_credentials_active",
        "organization_id",
        "provider",
        unique=True,
        postgresql_where=text("is_active"),
    ),
)
