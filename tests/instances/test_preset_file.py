"""``preset_ini``: a file beside the instance, and ``--models-preset``."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from instances.errors import InvalidInstance
from instances.launch import CONTAINER_PRESET, Launch, launch_for
from instances.options import InstanceOptions
from instances.preset_file import PresetFile
from llamactl.config import AppConfig, current
from llamactl.core.errors import InvalidRequest

INI = "[*]\nctx-size = 4096\n\n[small]\nmodel = /models/small.gguf\n"


def parse(**document: object) -> InstanceOptions:
    return InstanceOptions.parse({"preset_ini": INI, **document}, current())


def launch(options: InstanceOptions, config: AppConfig) -> Launch:
    return launch_for("router", options, 8001, config, "key", which=lambda name, **_: f"/b/{name}")


def test_the_file_is_beside_the_instance_and_named_to_the_program(config: AppConfig) -> None:
    launched = launch(parse(), config)
    path = config.instances.configs_dir / "router" / "preset.ini"
    assert launched.preset == PresetFile(path, INI)
    at = launched.argv.index("--models-preset")
    assert launched.argv[at + 1] == str(path)
    # Without a model it is a router, which has the names of its models.
    assert "--alias" not in launched.argv


def test_without_presets_there_is_no_file(config: AppConfig) -> None:
    launched = launch(parse(preset_ini=""), config)
    assert launched.preset is None
    assert "--models-preset" not in launched.argv


def test_a_container_gets_the_file_mounted(config: AppConfig) -> None:
    launched = launch(parse(docker_enabled=True), config)
    path = config.instances.configs_dir / "router" / "preset.ini"
    mount = launched.argv.index(f"{path}:{CONTAINER_PRESET}:ro")
    assert launched.argv[mount - 1] == "-v"
    assert launched.argv[launched.argv.index("--models-preset") + 1] == CONTAINER_PRESET
    assert mount < launched.argv.index("--models-preset")


def test_the_text_is_kept_as_it_is_but_for_line_breaks_of_browsers() -> None:
    assert parse(preset_ini=INI.replace("\n", "\r\n")).preset_ini == INI
    assert parse().to_document()["preset_ini"] == INI
    assert "preset_ini" not in parse(preset_ini=None).to_document()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"backend_type": "vllm"}, "preset_ini is not read by a program of the type vllm"),
        ({"backend_type": "mlx_lm"}, "preset_ini is not read"),
        (
            {"backend_options": {"models_preset": "/x.ini"}},
            "backend_options.models_preset name two",
        ),
        ({"preset_ini": "a\x00"}, "preset_ini must not contain a NUL character"),
        ({"preset_ini": "a\x1b[0m"}, "preset_ini must not contain control characters"),
        ({"preset_ini": "\ud800"}, "preset_ini must not contain half of a surrogate pair"),
        ({"preset_ini": "x" * 300_000}, "preset_ini must be at most 262144 bytes long"),
    ],
)
def test_a_wrong_text_is_refused_by_its_field(document: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInstance) as caught:
        parse(**document)
    assert words in caught.value.details


@pytest.mark.parametrize("value", [5, ["a"], {"a": {}}])
def test_another_type_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="preset_ini must be a string"):
        parse(preset_ini=value)


def test_the_file_is_its_owners_alone_and_is_replaced(tmp_path: Path) -> None:
    preset = PresetFile(tmp_path / "instances" / "router" / "preset.ini", INI)
    preset.write()
    replace(preset, text="[*]\n").write()
    assert preset.path.read_text() == "[*]\n"
    assert stat.S_IMODE(preset.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(preset.path.parent.stat().st_mode) == 0o700
    assert [file.name for file in preset.path.parent.iterdir()] == ["preset.ini"]


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    preset = PresetFile(tmp_path / "preset" / "preset.ini", INI)
    preset.path.parent.mkdir()
    preset.path.symlink_to(other)
    preset.write()
    assert other.read_text() == "mine"
    assert preset.path.read_text() == INI
