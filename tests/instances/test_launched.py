"""Changes of an instance's options that take a new process, and those that do not."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from instances.launched import Launched
from instances.option_document import AtLaunch
from instances.options import InstanceOptions
from llamactl.config import AppConfig

BASE = {"backend_type": "llama_cpp", "backend_options": {"model": "/m.gguf"}}


class OptionsOfTomorrow(InstanceOptions):
    """The options with two more."""

    nice: Annotated[int, AtLaunch()] = Field(default=0)
    note: str = Field(default="")


def takes_new_process(before: dict[str, Any], after: dict[str, Any], config: AppConfig) -> bool:
    def launched(document: dict[str, Any]) -> Launched:
        return Launched(OptionsOfTomorrow.parse(BASE | document, config), 8100)

    return launched(after).differs_from(launched(before), "one", config)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"backend_options": {"model": "/n.gguf"}}, True),
        ({"environment": {"A": "1"}}, True),
        ({"working_directory": "/tmp"}, True),
        ({"limits": {"memory_mb": 1024}}, True),
        # It should not take a new process to say the default.
        ({"docker_enabled": False}, False),
        ({"idle_timeout": 7}, False),
        ({"pinned": True}, False),
        # A new option says by its mark alone whether it takes one.
        ({"nice": 5}, True),
        ({"note": "x"}, False),
    ],
)
def test_the_mark_of_an_option_decides(
    change: dict[str, Any], expected: bool, config: AppConfig
) -> None:
    assert takes_new_process({}, change, config) is expected
    assert takes_new_process(change, {}, config) is expected


def test_limits_of_a_container_are_dockers(config: AppConfig) -> None:
    docker = {"docker_enabled": True}
    limits = {"limits": {"memory_mb": 1024}}
    assert not takes_new_process(docker, docker | limits, config)
    assert takes_new_process(docker, docker | {"nice": 5}, config)
