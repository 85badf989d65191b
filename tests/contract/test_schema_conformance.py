"""The management API's answers to any request, held to its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections

from instances import lifecycle
from keys.issuing import issue
from llamactl.openapi.views import document
from llamactl.wsgi import application
from proxy.openapi import paths as proxied_paths
from tests.contract.generated_cases import operations_of, schema_of, try_cases
from tests.support.environment import MANAGEMENT_KEY

if TYPE_CHECKING:
    import schemathesis
    from schemathesis.schemas import BaseSchema

HAVE_RULES_THAT_NO_SCHEMA_SAYS = [
    *("create_instance", "replace_instance_options"),  # the values of the backend's flags
    *("parse_llama_cpp_command", "parse_vllm_command", "parse_mlx_lm_command"),
    "create_key",  # a time in the future, instances that exist
    "list_last_requests",  # ids of keys, the next of a page
    "change_key",  # an expiry in the future, instances with the mode that has them
    "show_usage",  # dates, a range that begins before its end, the next of a page
]
MAY_WAIT_IN_VAIN = ["start_instance", "restart_instance"]
NEED_A_BROKER = ["list_requests", "cancel_request"]

CONFIG: dict[str, Any] = {
    "seed": 1,
    "generation": {"deterministic": True, "max-examples": 20, "database": "none"},
    "operations": [
        {
            "include-operation-id": HAVE_RULES_THAT_NO_SCHEMA_SAYS,
            "checks": {
                "positive_data_acceptance": {
                    "expected-statuses": ["2xx", 400, 401, 404, 409],
                }
            },
        },
        {
            "include-operation-id": [*MAY_WAIT_IN_VAIN, *NEED_A_BROKER],
            "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", 503]}},
        },
        {
            # Here it is served by WSGI, under which a log can't be followed.
            "include-operation-id": "read_instance_log",
            "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", 501]}},
        },
    ],
}

DOCUMENT = document()
MANAGEMENT = {
    path: operations
    for path, operations in DOCUMENT["paths"].items()
    if path not in proxied_paths()
}


@cache
def schema() -> BaseSchema:
    made = schema_of({**DOCUMENT, "paths": MANAGEMENT}, CONFIG)
    made.app = application
    made.hook(filter_case)
    return made


def filter_case(context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Without ``null`` for a new instance: it is the same as no body, which is no violation."""
    return case.operation.definition.raw["operationId"] != "create_instance" or (
        case.body is not None
    )


@pytest.fixture
def kept_connection(db: None) -> Iterator[None]:
    """The test's transaction stays open between requests, as with Django's own test client."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def things(db: None, settings: Any, override: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objects of the document's examples: an instance ``gemma``, a key 1, a node."""
    monkeypatch.setattr(lifecycle, "wake_node", lambda node: None)
    override(instances={"on_demand_start_timeout": 0})
    config = settings.LLAMACTL
    llama_cpp = config.backends.llama_cpp.model_copy(update={"command": "/bin/echo"})
    backends = config.backends.model_copy(update={"llama_cpp": llama_cpp})
    settings.LLAMACTL = config.model_copy(update={"backends": backends})
    instance = lifecycle.create("gemma", {}, cause="test")
    issue(name="app", permission_mode="per_instance", instance_ids=[instance.pk])


@pytest.mark.parametrize(("method", "path"), operations_of(MANAGEMENT))
@pytest.mark.usefixtures("kept_connection", "things")
def test_every_answer_is_one_that_the_document_knows(method: str, path: str) -> None:
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {MANAGEMENT_KEY}"})

    try_cases(schema(), method, path, check)
