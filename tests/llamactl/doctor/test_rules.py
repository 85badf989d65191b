"""Each rule of the doctor, on made-up facts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest

from llamactl.config import AppConfig
from llamactl.config.places import PlaceProblem
from llamactl.core.locks import acquire
from llamactl.doctor import (
    backends,
    broker,
    database,
    environment,
    host,
    instances,
    ports,
    processes,
    services,
    storage,
)
from llamactl.doctor.checks import run_checks
from llamactl.doctor.diagnosis import (
    Diagnosis,
    DiagnosisLevel,
    exit_code,
    summary,
    to_json,
    to_lines,
)
from llamactl.doctor.services import WebFacts, WorkerFacts

HERE = Path("/srv/llamactl")
WELL = storage.DirectoryFacts(HERE, exists=True, free_bytes=2**40, free_files=10**6)
OK, NOTE, WARNING, PROBLEM = (
    DiagnosisLevel.OK,
    DiagnosisLevel.NOTE,
    DiagnosisLevel.WARNING,
    DiagnosisLevel.PROBLEM,
)


def worst(diagnoses: Iterable[Diagnosis]) -> Diagnosis:
    """The worst diagnosis; each warning and problem must have a remedy."""
    order = list(DiagnosisLevel)
    found = list(diagnoses)
    assert all(each.remedy for each in found if each.level in (WARNING, PROBLEM))
    return max(found, key=lambda each: order.index(each.level))


def directory(**facts: object) -> storage.DirectoryFacts:
    return storage.DirectoryFacts(**{**vars(WELL), **facts})


@pytest.mark.parametrize(
    ("facts", "level", "text"),
    [
        ({}, OK, "1.0 TiB"),
        ({"exists": False}, NOTE, "does not exist yet"),
        ({"owner": 0, "user": 8}, WARNING, "belongs to uid 0"),
        ({"mode": 0o755}, WARNING, "mode 0755"),
        ({"exposed_secrets": ["secret_key"]}, PROBLEM, "secret_key can be read"),
        ({"free_bytes": 10**6}, PROBLEM, "disk is full"),
        ({"free_bytes": 2**30}, WARNING, "only 1 GiB"),
        ({"free_files": 3}, PROBLEM, "only 3 more files"),
        ({"free_files": None}, OK, "free"),
        ({"file_system": "nfs4"}, WARNING, "nfs4"),
    ],
)
def test_data_directory(facts: dict[str, object], level: DiagnosisLevel, text: str) -> None:
    found = worst(storage.diagnose(directory(**facts)))
    assert found.level is level
    assert text in found.message


def test_the_facts_of_a_directory_are_collected(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("x")
    (tmp_path / "secret_key").chmod(0o644)
    tmp_path.chmod(0o700)
    facts = storage.collect(tmp_path)
    assert facts.is_usable
    assert facts.mode == 0o700
    assert facts.free_bytes > 0
    assert facts.exposed_secrets == ["secret_key"]
    (tmp_path / "file").touch()
    assert not storage.collect(tmp_path / "missing").exists
    assert not storage.collect(tmp_path / "file" / "below").can_be_created
    assert not storage.collect(tmp_path / "file").is_directory


@pytest.mark.parametrize(
    "facts",
    [{"exists": False, "can_be_created": False}, {"is_directory": False}, {"is_usable": False}],
)
def test_an_unusable_data_directory_is_told_once(facts: dict[str, object]) -> None:
    """``diagnose_places`` tells it, in the words in which each service refuses it."""
    assert list(storage.diagnose(directory(**facts))) == []


@pytest.mark.parametrize("below", ["", "below"])
def test_a_data_directory_that_is_a_file_is_a_problem(
    config: AppConfig, tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / below
    changed = config.model_copy(update={"data_dir": path})
    found = islice((each for each in run_checks(changed) if each.subject == storage.SUBJECT), 1)
    assert "is not a directory" in worst(found).message


@pytest.mark.parametrize(
    ("total", "free", "level"),
    [
        (2**20, 2**40, OK),
        (11 * 2**30, 2**40, WARNING),
        (3 * 2**30, 2**30, WARNING),
        (2**20, 0, OK),
    ],
)
def test_logs(total: int, free: int, level: DiagnosisLevel) -> None:
    facts = storage.LogFacts(HERE, total, free, ("big.log", total))
    assert worst(storage.diagnose_logs(facts)).level is level


@pytest.mark.parametrize(
    ("facts", "level", "text"),
    [
        ({}, OK, "/x.db"),
        ({"exists": False}, NOTE, "does not exist yet"),
        ({"error": "database is locked"}, PROBLEM, "locked"),
        ({"error": "file is not a database"}, PROBLEM, "not a database"),
        ({"error": "connection refused", "is_sqlite": False}, PROBLEM, "refused"),
        ({"damage": "page 3 is never used"}, PROBLEM, "page 3"),
        ({"missing_migrations": list("abcde")}, PROBLEM, "a, b, c and 2 more"),
        ({"unknown_migrations": ["keys.0999"]}, WARNING, "newer llamactl"),
        ({"lock_error": "database is locked"}, PROBLEM, "can't be written"),
        ({"seconds": 3.0}, WARNING, "3.0 s"),
    ],
)
def test_database(facts: dict[str, object], level: DiagnosisLevel, text: str) -> None:
    found = worst(database.diagnose(database.DatabaseFacts("/x.db", **facts)))  # type: ignore[arg-type]
    assert found.level is level
    assert text in found.message


WHOLE = {"valkey_version": "9.1.2", "aof_enabled": 1}


@pytest.mark.parametrize(
    ("facts", "level", "text"),
    [
        ({"info": WHOLE}, OK, "Valkey 9.1.2"),
        ({"info": {"redis_version": "7.2", "aof_enabled": 1}}, OK, "Redis 7.2"),
        ({"error": "Connection refused"}, PROBLEM, "does not answer"),
        ({"error": "invalid password", "is_refused": True}, PROBLEM, "rejects the password"),
        ({"info": WHOLE | {"aof_last_write_status": "err"}}, PROBLEM, "write to its disk"),
        ({"info": {"redis_version": "7.2", "aof_enabled": 0}}, NOTE, "append-only"),
        (
            {"info": WHOLE | {"maxmemory": 9, "maxmemory_policy": "allkeys-lru"}},
            WARNING,
            "evicts",
        ),
        ({"info": WHOLE, "milliseconds": 80.0}, WARNING, "80.0 ms"),
    ],
)
@pytest.mark.parametrize("is_embedded", [True, False])
def test_broker(
    facts: dict[str, object], level: DiagnosisLevel, text: str, is_embedded: bool
) -> None:
    found = worst(broker.diagnose(broker.BrokerFacts(is_embedded, **facts)))  # type: ignore[arg-type]
    assert found.level is level
    assert text in found.message


@pytest.mark.parametrize(
    ("facts", "has_run_before", "level"),
    [
        (WebFacts("127.0.0.1", 8080, True, True, 200), True, OK),
        (WebFacts("127.0.0.1", 8080, False), True, PROBLEM),
        (WebFacts("127.0.0.1", 8080, False), False, OK),
        (WebFacts("127.0.0.1", 8080, True, False, 404), True, PROBLEM),
        (WebFacts("127.0.0.1", 8080, True, False, 200), False, PROBLEM),
        (WebFacts("127.0.0.1", 8080, True, error="timed out"), True, PROBLEM),
        (WebFacts("0.0.0.0", 8080, True, True, 200, open_apis=("auth.x",)), True, WARNING),
        (WebFacts("127.0.0.1", 8080, True, True, 200, open_apis=("auth.x",)), True, OK),
    ],
)
def test_web(facts: WebFacts, has_run_before: bool, level: DiagnosisLevel) -> None:
    assert worst(services.diagnose_web(facts, has_run_before=has_run_before)).level is level


@pytest.mark.parametrize(
    ("facts", "level", "text"),
    [
        (WorkerFacts("main", 1.0), OK, "alive"),
        (WorkerFacts("main", 60.0), PROBLEM, "for 60 s: no instance is started"),
        (WorkerFacts("main", None), PROBLEM, "no heartbeat ever"),
        (WorkerFacts("main", 60.0, lock_holder=7), PROBLEM, "process 7 holds its lock"),
        (WorkerFacts("gpu2", 60.0, is_local=False), WARNING, "gpu2"),
        (WorkerFacts("main", 1.0, is_drained=True), NOTE, "drained"),
        (WorkerFacts("main", None, is_known=False), PROBLEM, "no process holds the lock"),
        (WorkerFacts("main", None, is_known=False, lock_holder=7), NOTE, "can't be read"),
    ],
)
def test_worker(facts: WorkerFacts, level: DiagnosisLevel, text: str) -> None:
    found = worst(services.diagnose_worker(facts))
    assert found.level is level
    assert text in found.message


@pytest.mark.parametrize(
    ("facts", "level", "text"),
    [
        (ports.PortFacts(8000, 9000, 80, 1001), OK, "1001 of 1001"),
        (ports.PortFacts(8000, 9000, 80, 0), PROBLEM, "0 of 1001"),
        (ports.PortFacts(8000, 9000, 80, 5), WARNING, "5 of 1001"),
        (ports.PortFacts(8000, 9000, 8080, 900), NOTE, "8080"),
        (ports.PortFacts(8000, 9000, 80, 900, (32768, 60999)), OK, "900"),
        (ports.PortFacts(32000, 33000, 80, 900, (32768, 60999)), WARNING, "233 of them"),
        (
            ports.PortFacts(32000, 33000, 80, 900, (32768, 60999), frozenset(range(32000, 33001))),
            OK,
            "900",
        ),
    ],
)
def test_ports(facts: ports.PortFacts, level: DiagnosisLevel, text: str) -> None:
    found = worst(ports.diagnose(facts))
    assert found.level is level
    assert text in found.message


def test_a_foreign_program_on_an_instances_port_is_named() -> None:
    theirs, ours = ports.Listener(7, "nginx", False), ports.Listener(8, "llama-server", True)
    facts = ports.InstancePorts({8000: "a", 8001: "b"}, {8000: theirs, 8001: ours})
    (found,) = ports.diagnose_instances(facts)
    assert found.message == "nginx (process 7) listens on port 8000 of instance a"


@pytest.mark.parametrize(
    ("facts", "level", "text"),
    [
        (backends.ProgramFacts("vLLM", missing="not found; install it"), NOTE, "no instance"),
        (backends.ProgramFacts("vLLM", missing="no", is_used=True), PROBLEM, "missing"),
        (backends.ProgramFacts("vLLM", missing="no", is_configured=True), PROBLEM, "missing"),
        (backends.ProgramFacts("vLLM", "/bin/vllm", version="version 1"), OK, "version 1"),
        (backends.ProgramFacts("vLLM", "/bin/vllm", failure="no GPU"), PROBLEM, "no GPU"),
        (backends.ProgramFacts("llama.cpp", "/py", is_embedded=True), OK, "comes with llamactl"),
    ],
)
def test_programs(facts: backends.ProgramFacts, level: DiagnosisLevel, text: str) -> None:
    found = worst(backends.diagnose(facts))
    assert found.level is level
    assert text in found.message


def process_facts(known: dict[int, str] | None, **facts: object) -> processes.ProcessFacts:
    return processes.ProcessFacts(known, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "level", "text"),
    [
        (process_facts({}), OK, "0 backends"),
        (process_facts({7: "a"}, ours={7: "a"}), OK, "1 backend of"),
        (process_facts({}, ours={7: "a"}), PROBLEM, "does not know a (process 7)"),
        (process_facts(None, ours={7: "a"}), OK, "1 backend of"),
        (process_facts({7: "a"}, ours={7: "a"}, has_worker=False), PROBLEM, "no worker"),
        (
            process_facts({7: "a"}, ours={7: "a"}, guard_grace_seconds=9.0, has_guard=False),
            WARNING,
            "no orphan guard",
        ),
        (process_facts({}, foreign={9: "llama-server"}), NOTE, "llama-server (process 9)"),
        (process_facts({}, zombies=(4, 5)), WARNING, "2 exited backends"),
    ],
)
def test_processes(facts: processes.ProcessFacts, level: DiagnosisLevel, text: str) -> None:
    found = worst(processes.diagnose(facts))
    assert found.level is level
    assert text in found.message


def test_holder_of_a_lock_is_found_without_locking(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    descriptor = acquire(path)
    assert processes.lock_holder(path) == os.getpid()
    os.close(descriptor)
    assert processes.lock_holder(path) is None


def test_few_descriptors_are_a_warning() -> None:
    facts = host.DescriptorFacts({"the worker": 1024})
    assert worst(host.diagnose_descriptors(facts)).level is WARNING
    assert worst(host.diagnose_descriptors(host.DescriptorFacts({"x": 65536}))).level is OK


def test_clock() -> None:
    now = time.time()
    assert worst(host.diagnose_clock(now, {"the broker": now + 0.5, "b": None})).level is OK
    assert worst(host.diagnose_clock(now, {"the broker": now - 60})).level is WARNING
    assert worst(host.diagnose_clock(0.0, {})).level is PROBLEM


def test_a_problem_alone_makes_the_exit_code_1() -> None:
    def of(level: DiagnosisLevel) -> Diagnosis:
        return Diagnosis(level, "subject", "message", "remedy")

    assert exit_code([of(OK), of(NOTE), of(WARNING)]) == 0
    assert exit_code([of(OK), of(PROBLEM)]) == 1
    assert summary([of(PROBLEM), of(WARNING), of(WARNING)]) == "1 problem, 2 warnings."
    assert '"ok": false' in to_json([of(PROBLEM)])


def test_a_foreign_name_brings_no_escape_into_the_terminal() -> None:
    evil = Diagnosis(PROBLEM, "ports", "\x1b[2Jevil\nline", "\x07")
    assert all(each.isprintable() for each in to_lines(evil))


def test_variables_that_change_every_instance_are_named_without_their_values() -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/",
        "LANG": "C",
        "SECRET": "x",
        "LLAMA_ARG_CTX_SIZE": "hunter2",
        "CUDA_VISIBLE_DEVICES": "hunter2",
    }
    facts = environment.facts_of(environ, "the worker")
    found = list(environment.diagnose(facts))
    text = " ".join(each.message for each in found)
    assert "CUDA_VISIBLE_DEVICES" in text
    assert "LLAMA_ARG_CTX_SIZE" in text
    assert not any(word in text for word in ("hunter2", "SECRET", "PATH", "LANG"))
    assert worst(environment.diagnose(environment.facts_of({"PATH": "/bin"}, "x"))).level is OK


@pytest.mark.parametrize(
    ("facts", "level", "text"),
    [
        ({"inherited": {"LLAMA_ARG_CTX_SIZE"}}, WARNING, "inherits flags from the worker"),
        ({"inherited": {"HF_HOME"}}, NOTE, "inherits HF_HOME from the worker"),
        ({"withheld": {"LLAMA_ARG_X"}}, NOTE, "LLAMA_ARG_X, which no instance inherits"),
    ],
)
def test_inherited_variables(facts: dict[str, set[str]], level: DiagnosisLevel, text: str) -> None:
    frozen = {name: frozenset(names) for name, names in facts.items()}
    found = worst(environment.diagnose(environment.EnvironmentFacts("the worker", **frozen)))
    assert found.level is level
    assert text in found.message


def test_the_workers_own_environment_is_read() -> None:
    found = environment.collect(os.getpid())
    assert found.owner == f"the worker (process {os.getpid()})"
    assert environment.collect(None).owner == "this shell"


def test_instances_that_idle_timeout_0_pinned_are_listed() -> None:
    options: list[tuple[str, dict[str, object]]] = [
        ("b", {"idle_timeout": 0}),
        ("a", {"idle_timeout": 0, "pinned": False}),
        ("c", {"idle_timeout": 0, "pinned": True}),
        ("d", {"idle_timeout": 5}),
        ("e", {}),
    ]
    (found,) = instances.diagnose_idle_timeouts(options)
    assert found.level is NOTE
    assert found.message.startswith("a, b: idle_timeout is 0")
    assert list(instances.diagnose_idle_timeouts(options[2:])) == []


def test_a_broker_without_its_socket() -> None:
    facts = broker.BrokerFacts(True, "no such file", missing_socket="/tmp/x/s", process=7)
    found = worst(broker.diagnose(facts))
    assert found.level is PROBLEM
    assert "socket /tmp/x/s is gone" in found.message
    assert "restart the service llamactl-broker" in found.remedy


def test_a_go_database_is_named_with_the_command() -> None:
    (found,) = database.diagnose_go_database("a.db holds 5 instances: x imports them")
    assert (found.level, found.message) == (NOTE, "a.db holds 5 instances")
    assert found.remedy == "x imports them"
    assert list(database.diagnose_go_database("")) == []


def test_unusable_places_are_problems_and_foreign_owners_warnings() -> None:
    places = [PlaceProblem("a file can't be read", "chmod it")]
    assert worst(storage.diagnose_places(places, [])).level is PROBLEM
    owner = [PlaceProblem("belongs to me", "run as me")]
    assert worst(storage.diagnose_places([], owner)).level is WARNING
    logs = [PlaceProblem("no instance can start", "chmod it", stops_instances=True)]
    assert worst(storage.diagnose_places([], logs)).level is PROBLEM


def test_a_file_of_the_future_tells_of_a_clock_that_went_back(tmp_path: Path) -> None:
    assert storage.newest_file(tmp_path) == 0
    assert storage.newest_file(tmp_path / "none") == 0
    future = time.time() + 3600
    (tmp_path / "f").touch()
    os.utime(tmp_path / "f", (future, future))
    assert storage.newest_file(tmp_path) == pytest.approx(future)
