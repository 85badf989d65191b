"""The requests in flight, over all web processes, and the cancellation of one."""

from __future__ import annotations

import re
from typing import Any

import redis
from drf_spectacular.utils import OpenApiExample, OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from instances.scheduling.traffic_report import Traffic, read_reports
from instances.scheduling.web_query import RequestDocument, WebAnswer, WebAnswers, ask
from llamactl.api.views import ApiViewSet
from llamactl.core.errors import InvalidParameter, LlamactlError
from llamactl.core.events import client
from llamactl.openapi import operation

_TAG = "System"
_ID = re.compile(r"[0-9a-f]{32}")
_EXAMPLE_ID = "6f1c0e9d5a7b4c3d8e2f1a0b9c8d7e6f"


class BrokerUnavailable(LlamactlError):
    """A broker that does not answer, so that the web processes can't be asked."""

    code = "broker_unavailable"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "the broker does not answer, and without it the web processes can't be asked; try again"
            " in a moment",
            retry_after=5,
        )


class WebProcessSilent(LlamactlError):
    """A web process that did not answer, and may have the request."""

    code = "web_process_silent"
    status = 503

    def __init__(self, request_id: str, answers: WebAnswers) -> None:
        super().__init__(
            f"no web process that answered has the request {request_id}, but"
            f" {answers.asked - len(answers.answers)} of {answers.asked} did not answer; try again",
            retry_after=1,
        )


class RequestNotFound(LlamactlError):
    """An id of no request in flight."""

    code = "request_not_found"
    status = 404

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"no request in flight has the id {request_id}: it may have ended;"
            " GET /api/v1/requests lists them"
        )


class RequestSerializer(serializers.Serializer[Any]):
    """A request in flight."""

    id = serializers.CharField(help_text="Id, which the client gets as `X-Request-Id`.")
    client_request_id = serializers.CharField(
        allow_null=True, help_text="The client's own `X-Request-Id`."
    )
    key = serializers.CharField(
        help_text="Name of the inference key, `management`, or `anonymous` without a key."
    )
    key_id = serializers.IntegerField(allow_null=True, help_text="Id of the inference key.")
    instance = serializers.CharField(help_text="Name of the instance.")
    method = serializers.CharField(help_text="HTTP method.")
    path = serializers.CharField(help_text="Path of the request, without its query.")
    phase = serializers.ChoiceField(
        ["queued", "loading", "prefill", "streaming"],
        help_text="Waits for capacity, waits for the model to load, waits for the backend's first"
        " byte, or gets the response.",
    )
    elapsed_seconds = serializers.FloatField(help_text="Seconds since the request came.")
    tokens = serializers.IntegerField(
        allow_null=True, help_text="Tokens of the completion so far, by the events of a stream."
    )
    bytes = serializers.IntegerField(help_text="Bytes of the response so far.")
    client = serializers.CharField(allow_null=True, help_text="Address of the client.")


class RequestListSerializer(serializers.Serializer[Any]):
    """The requests in flight of all web processes."""

    requests = RequestSerializer(many=True, help_text="Oldest first.")
    total = serializers.IntegerField(
        help_text="Number of requests in flight; each web process lists 1,000 at most."
    )
    web_processes = serializers.IntegerField(help_text="Number of web processes.")
    unanswered = serializers.IntegerField(
        help_text="Web processes that did not answer within a second; their requests are missing."
    )


class CancelledSerializer(RequestSerializer):
    """A cancelled request, as it was before."""

    other_requests = serializers.IntegerField(
        help_text="Other requests in flight to the instance. While one of them streams, llama.cpp"
        " may go on with a cancelled request that has not streamed yet."
    )
    details = serializers.CharField(help_text="What becomes of the backend's slot.")


_REQUEST: RequestDocument = {
    "id": _EXAMPLE_ID,
    "client_request_id": None,
    "key": "chat app",
    "key_id": 1,
    "instance": "gemma",
    "method": "POST",
    "path": "/v1/chat/completions",
    "phase": "streaming",
    "elapsed_seconds": 12.345,
    "tokens": 88,
    "bytes": 20480,
    "client": "192.0.2.7",
}
_PARAMETER = OpenApiParameter(
    "id",
    {"type": "string", "pattern": f"^{_ID.pattern}$"},
    OpenApiParameter.PATH,
    description="Id of the request, as in the list and in `X-Request-Id`.",
    examples=[OpenApiExample("a request", value=_EXAMPLE_ID)],
)


class RequestViewSet(ApiViewSet):
    """List and cancel requests in flight."""

    # Not "list": drf-spectacular describes an action of that name as an array.
    @operation(
        _TAG,
        "List the requests in flight",
        name="list_requests",
        description="Of all web processes: those that wait for an instance, and those that a"
        " backend computes. WebSockets are not listed.",
        answer=RequestListSerializer,
        answers={
            "one request": {
                "requests": [_REQUEST],
                "total": 1,
                "web_processes": 2,
                "unanswered": 0,
            }
        },
        errors=[BrokerUnavailable()],
        uses_database=False,
    )
    def in_flight(self, request: Request) -> Response:
        answers = _ask()
        return Response(list_of(answers))

    @operation(
        _TAG,
        "Cancel a request in flight",
        name="cancel_request",
        description="Its client gets 503 `request_cancelled`, or an error event where an event"
        " stream has begun; any other response that has begun is cut. The backend's connection is"
        " closed at once.",
        parameters=[_PARAMETER],
        answer=CancelledSerializer,
        answers={
            "a stream": {
                **_REQUEST,
                "other_requests": 0,
                "details": "cancelled; the connection to the backend of gemma is closed, which"
                " frees its slot",
            }
        },
        errors=[
            InvalidParameter("id must be 32 hexadecimal digits, got 'x'"),
            RequestNotFound(_EXAMPLE_ID),
            WebProcessSilent(_EXAMPLE_ID, WebAnswers([], 1)),
            BrokerUnavailable(),
        ],
        uses_database=False,
    )
    def cancel(self, request: Request, id: str) -> Response:
        if not _ID.fullmatch(id):
            raise InvalidParameter(f"id must be 32 hexadecimal digits, got {id[:80]!r}")
        answers = _ask(cancel=id)
        found = next((answer for answer in answers.answers if answer["requests"]), None)
        if found is None and not answers.is_complete:
            raise WebProcessSilent(id, answers)
        if found is None:
            raise RequestNotFound(id)
        return Response(cancelled_document(found))


def _ask(cancel: str = "") -> WebAnswers:
    try:
        return ask(client(), cancel=cancel)
    except (redis.RedisError, OSError):
        raise BrokerUnavailable from None


def list_of(answers: WebAnswers) -> dict[str, object]:
    """Merge the answers into one list, oldest first."""
    requests = [each for answer in answers.answers for each in answer["requests"]]
    return {
        "requests": sorted(requests, key=lambda each: -each["elapsed_seconds"]),
        "total": sum(answer["total"] for answer in answers.answers),
        "web_processes": answers.asked,
        "unanswered": answers.asked - len(answers.answers),
    }


def cancelled_document(answer: WebAnswer) -> dict[str, object]:
    """Describe a cancelled request, and what becomes of its slot."""
    (cancelled,) = answer["requests"]
    name = cancelled["instance"]
    others = answer["others"] + _elsewhere(name, answer["web_id"])
    details = _fate_of_the_slot(name, cancelled["phase"], others)
    return {**cancelled, "other_requests": others, "details": f"cancelled{details}"}


def _fate_of_the_slot(name: str, phase: str, others: int) -> str:
    if phase not in ("prefill", "streaming"):
        return f" before it was sent to the backend of {name}"
    if phase == "streaming":
        return f"; the connection to the backend of {name} is closed, which frees its slot"
    if others:
        return (
            f"; other requests run on {name} ({others} now), and as long as one of them streams,"
            " llama.cpp may go on with this one"
        )
    return (
        f"; the connection to the backend of {name} is closed: llama.cpp ends the batch of the"
        " prompt that it computes, and frees the slot"
    )


def _elsewhere(name: str, web_id: str) -> int:
    """Count the requests to the instance in other web processes, by their last reports."""
    try:
        reports = [each for each in read_reports(client()) if each.web_id != web_id]
    except (redis.RedisError, OSError):
        return 0
    return Traffic(reports).in_use(name)
