"""The migration this code needs, by itself: what only compares it need not import SQLAlchemy."""

HEAD = "0008"
"""The revision of the newest file in migrations/versions; a test holds the two together."""
