"""Commands for docker."""

from __future__ import annotations

from instances.backends.docker import container_name, remove_command, run_command, stop_command


def test_only_the_names_of_variables_are_in_the_arguments() -> None:
    command = run_command(
        "/usr/bin/docker",
        docker_args=["run", "--rm", "--gpus", "all"],
        variables=["HF_TOKEN", "CUDA_VISIBLE_DEVICES"],
        name="llamactl-a-8000",
        image="image:latest",
        args=["--port", "8000"],
    )

    assert command == [
        *("/usr/bin/docker", "run", "--rm", "--gpus", "all"),
        *("-e", "CUDA_VISIBLE_DEVICES", "-e", "HF_TOKEN"),
        *("--name", "llamactl-a-8000"),
        *("image:latest", "--port", "8000"),
    ]


def test_run_is_added_where_the_config_leaves_it_out() -> None:
    command = run_command(
        "docker", docker_args=["--rm"], variables=(), name="n", image="i", args=()
    )

    assert command == ["docker", "run", "--rm", "--name", "n", "i"]


def test_two_llamactls_on_one_machine_have_different_containers() -> None:
    assert container_name("a", 8000) != container_name("a", 8001)


def test_a_container_is_stopped_and_removed_by_name() -> None:
    assert stop_command("n", 10) == ["docker", "stop", "-t", "10", "n"]
    assert remove_command("n") == ["docker", "rm", "-f", "n"]
