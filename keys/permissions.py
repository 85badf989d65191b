"""Permission to use the management API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from keys.authentication import ManagementClient
from llamactl.config import current
from llamactl.core.errors import MissingKey

if TYPE_CHECKING:
    from rest_framework.views import APIView  # not at run time: the module imports this one


class HasManagementKey(BasePermission):
    """Allows requests with a management key, or all if ``auth.require_management_auth`` is off."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.method == "OPTIONS" or not current().auth.require_management_auth:
            return True
        if not isinstance(request.user, ManagementClient):
            raise MissingKey
        return True
