"""Operations on inference keys."""

from __future__ import annotations

from django.db.models import Prefetch, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from keys.api import schema
from keys.api.requests import (
    KeyJSONParser,
    KeyRequest,
    change_of,
    old_valid_of,
    parse_key_id,
)
from keys.api.serializers import KeySerializer, PermissionSerializer
from keys.changing import change, rotate
from keys.errors import KeyNotFound
from keys.issuing import issue, revoke
from keys.models import InferenceKey, KeyPermission
from llamactl.api.views import ApiViewSet, request_document


class KeyViewSet(ApiViewSet):
    """Create, list, show, change, rotate and revoke inference keys."""

    parser_classes = [KeyJSONParser]

    @schema.list_keys
    def list(self, request: Request) -> Response:
        return Response(KeySerializer(_keys(), many=True).data)

    @schema.create_key
    def create(self, request: Request) -> Response:
        asked = KeyRequest.from_document(request_document(request) or {})
        key, plain = issue(
            name=asked.name,
            permission_mode=asked.permission_mode,
            instance_ids=asked.instance_ids,
            rights=asked.rights,
            expires_at=asked.expires_at,
        )
        body = {**KeySerializer(_find(str(key.pk))).data, "key": plain}
        return Response(body, status=201, headers={"Cache-Control": "no-store"})

    @schema.show_key
    def retrieve(self, request: Request, id: str) -> Response:
        return Response(KeySerializer(_find(id)).data)

    @schema.change_key
    def partial_update(self, request: Request, id: str) -> Response:
        key_id = _find(id).pk
        change(key_id, change_of(request_document(request)))
        return Response(KeySerializer(_find(id)).data)

    @schema.rotate_key
    def rotate(self, request: Request, id: str) -> Response:
        key_id = _find(id).pk
        _, plain = rotate(key_id, old_valid=old_valid_of(request_document(request)))
        body = {**KeySerializer(_find(id)).data, "key": plain}
        return Response(body, headers={"Cache-Control": "no-store"})

    @schema.revoke_key
    def destroy(self, request: Request, id: str) -> Response:
        revoke([_find(id)])
        return Response(status=204)

    @schema.list_permissions
    def permissions(self, request: Request, id: str) -> Response:
        rows = _find(id).permissions.select_related("instance").order_by("instance__name")
        return Response(PermissionSerializer(rows, many=True).data)


def _keys() -> QuerySet[InferenceKey]:
    in_order = KeyPermission.objects.order_by("instance_id")
    return InferenceKey.objects.prefetch_related(Prefetch("permissions", in_order))


def _find(id_text: str) -> InferenceKey:
    """Return the key with the id of a path. Raises InvalidKeyId or KeyNotFound."""
    key_id = parse_key_id(id_text)
    try:
        return _keys().get(pk=key_id)
    except InferenceKey.DoesNotExist:
        raise KeyNotFound(f"API key {key_id} not found; GET /api/v1/auth/keys lists them") from None
