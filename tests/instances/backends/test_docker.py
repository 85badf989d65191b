"""Commands for docker."""

from __future__ import annotations

from instances.backends.docker import (
    container_name,
    labels_of,
    remove_command,
    run_command,
    stop_command,
)


def test_only_the_names_of_variables_are_in_the_arguments() -> None:
    command = run_command(
        "/usr/bin/docker",
        docker_args=["run", "--rm", "--gpus", "all"],
        variables=["HF_TOKEN", "CUDA_VISIBLE_DEVICES"],
        name="llamactl-0a1b2c3d-a-8000",
        labels=labels_of("0a1b2c3d", "a"),
        image="image:latest",
        args=["--port", "8000"],
    )

    assert command == [
        *("/usr/bin/docker", "run", "--rm", "--gpus", "all"),
        *("-e", "CUDA_VISIBLE_DEVICES", "-e", "HF_TOKEN"),
        *("--label", "llamactl.installation=0a1b2c3d", "--label", "llamactl.instance=a"),
        *("--name", "llamactl-0a1b2c3d-a-8000"),
        *("image:latest", "--port", "8000"),
    ]


def test_run_is_added_where_the_config_leaves_it_out() -> None:
    command = run_command(
        "docker", docker_args=["--rm"], variables=(), name="n", labels={}, image="i", args=()
    )

    assert command == ["docker", "run", "--rm", "--name", "n", "i"]


def test_the_configs_labels_do_not_replace_ours() -> None:
    args = ["run", "--label", "llamactl.installation=other", "-l", "mine=1"]
    command = run_command(
        "docker",
        docker_args=args,
        variables=(),
        name="n",
        labels=labels_of("0a1b2c3d", "a"),
        image="i",
        args=(),
    )
    # Docker keeps the last of equal labels.
    assert command.index("llamactl.installation=other") < command.index(
        "llamactl.installation=0a1b2c3d"
    )
    assert "mine=1" in command


def test_two_llamactls_on_one_machine_have_different_containers() -> None:
    assert container_name("0a1b2c3d", "a", 8000) != container_name("ffffffff", "a", 8000)


def test_a_container_is_stopped_and_removed_by_id() -> None:
    assert stop_command("cafe", 10) == ["docker", "stop", "-t", "10", "cafe"]
    assert remove_command("cafe") == ["docker", "rm", "-f", "cafe"]
