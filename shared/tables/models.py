"""Model aliases and the ordered groups through which teams hold them."""

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, Table, Text

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
)

team_access_groups = Table(
    "team_access_groups",
    metadata,
    Column("team_id", Text, ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True),
    Column("group_name", Text, ForeignKey("model_access_groups.group_name"), primary_key=True, index=True),
    Column("position", Integer, nullable=False, server_default="0"),
)
