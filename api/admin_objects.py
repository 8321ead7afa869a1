"""The JSON objects of admin users and of the audit log."""

from typing import Any

from shared.admin_users import User
from shared.audit import Line
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


def audit_object(line: Line) -> dict[str, Any]:
    """A line of the audit log."""
    return {
        "audit_id": str(line.id),
        "user_id": line.user_id,
        "action": line.action,
        "resource_type": line.resource_type,
        "resource_id": line.resource_id,
        "details": line.details,
        "ip_address": line.ip_address,
        "created_at": iso(line.created_at),
    }
