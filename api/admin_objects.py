"""The JSON objects of admin users and of the audit log."""

from typing import Any

from shared.admin_users import User
from shared.audit import Entry
from shared.clock import iso


def user_object(user: User) -> dict[str, Any]:
    """An admin user; the password's hash never leaves."""
    return {
        "user_id": str(user.id),
        "email": user.email,
        "display_name": user.display_name,
        "role": user.role,
        "is_active": user.is_active,
        "created_at": iso(user.created_at),
        "created_by": user.created_by,
        "last_login": iso(user.last_login_at),
        "metadata": user.metadata,
    }


def audit_object(entry: Entry) -> dict[str, Any]:
    """An entry of the audit log."""
    return {
        "audit_id": str(entry.id),
        "user_id": entry.user_id,
        "action": entry.action,
        "resource_type": entry.resource_type,
        "resource_id": entry.resource_id,
        "details": entry.details,
        "ip_address": entry.ip_address,
        "created_at": iso(entry.created_at),
    }
