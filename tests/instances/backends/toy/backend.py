"""A toy backend, with one of everything that a backend can declare."""

from __future__ import annotations

from typing import Annotated

from instances.backends.base import Backend
from instances.backends.command_line import Programs
from instances.backends.failure_signs import FailureReason, FailureSign
from instances.backends.flag_rows import integer, text
from instances.backends.flags import FlagTable
from instances.backends.option_fields import MODEL, OptionField
from instances.backends.path_options import FILE
from llamactl.config.schema import BackendConfig, DockerConfig
from llamactl.config.types import ExpandsHome, Text, Words


class ToyDocker(DockerConfig):
    """An image of the toy."""

    image: Text = "toy:latest"


class ToyConfig(BackendConfig):
    """``backends.toy-server``."""

    command: Annotated[Text, ExpandsHome] = "toy-server"
    args: Words = ["serve"]
    docker: ToyDocker | None = ToyDocker()


class Toy(Backend):
    """A server of toy models."""

    type = "toy"
    config_name = "toy-server"
    config_model = ToyConfig
    title = "Toy"
    install_hint = "build the toy"
    table = FlagTable(
        (text("model", "-m"), integer("wheels", "-w"), text("host"), integer("port")), equals=True
    )
    programs = Programs(commands=(("toy-server", "serve"), ("toy-server",)))
    path_options = {"model": FILE}
    failure_signs = (
        FailureSign(
            r"toy: no wheel (?P<number>\d+)", FailureReason.BAD_FLAG, "Wheel {number} is missing."
        ),
    )
    process_names = frozenset({"toy-server"})
    environment_prefixes = ("TOY_",)
    added_environment = {"TOY_QUIET": "1"}
    option_fields = ((MODEL,), (OptionField("wheels", "Wheels", "How many there are."),))
    example_instances = {
        "Toy": {"backend_type": "toy", "backend_options": {"model": "/models/car.toy"}}
    }
    example_command = "toy-server serve -m /models/car.toy -w 4"
