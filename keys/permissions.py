"""Which requests the management API lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from keys.authentication import Manager
from llamactl.config import current

if TYPE_CHECKING:
    from rest_framework.views import APIView  # which imports this module while it is imported


class IsManager(BasePermission):
    """Holders of a management key, or everyone where ``auth.require_management_auth`` is off."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.method == "OPTIONS" or not current().auth.require_management_auth:
            return True
        if not isinstance(request.user, Manager):
            raise NotAuthenticated("Missing API key")
        return True
