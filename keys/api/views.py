"""Operations on inference keys."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from keys.api import schema
from keys.api.serializers import (
    KeyJSONParser,
    KeyRequest,
    KeySerializer,
    PermissionSerializer,
    parse_key_id,
)
from keys.errors import KeyNotFound
from keys.issuing import issue, revoke
from keys.models import InferenceKey
from llamactl.api.views import ApiViewSet, request_document


class KeyViewSet(ApiViewSet):
    """Create, list, show and revoke inference keys. As in the Go API, there is no PUT."""

    parser_classes = [KeyJSONParser]

    @schema.list_keys
    def list(self, request: Request) -> Response:
        return Response(KeySerializer(InferenceKey.objects.all(), many=True).data)

    @schema.create_key
    def create(self, request: Request) -> Response:
        asked = KeyRequest.from_document(request_document(request) or {})
        key, plain = issue(
            name=asked.name,
            permission_mode=asked.permission_mode,
            instance_ids=asked.instance_ids,
            expires_at=asked.expires_at,
        )
        body = {**KeySerializer(key).data, "key": plain}
        return Response(body, status=201, headers={"Cache-Control": "no-store"})

    @schema.show_key
    def retrieve(self, request: Request, id: str) -> Response:
        return Response(KeySerializer(_find(id)).data)

    @schema.revoke_key
    def destroy(self, request: Request, id: str) -> Response:
        revoke([_find(id)])
        return Response(status=204)

    @schema.list_permissions
    def permissions(self, request: Request, id: str) -> Response:
        return Response(PermissionSerializer(_find(id).instances.all(), many=True).data)


def _find(id_text: str) -> InferenceKey:
    """Return the key with the id of a path. Raises InvalidKeyId or KeyNotFound."""
    key_id = parse_key_id(id_text)
    try:
        return InferenceKey.objects.get(pk=key_id)
    except InferenceKey.DoesNotExist:
        raise KeyNotFound(f"API key {key_id} not found; GET /api/v1/auth/keys lists them") from None
