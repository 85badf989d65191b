from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from instances.backends.run_program import CommandFailed, output_of


def python(code: str, **bounds: float) -> str:
    return output_of([sys.executable, "-c", code], environment=os.environ, **bounds)  # type: ignore[arg-type]


def test_both_outputs_come_back_as_one_text() -> None:
    code = "import sys; print('one', flush=True); sys.stderr.write('two\\xff\\n')"
    assert python(code) == "one\ntwoÿ\n"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert python("import sys; sys.stdout.buffer.write(b'a\\xff')") == "a�"


def test_nothing_is_read_from_our_standard_input() -> None:
    assert python("import sys; print(repr(sys.stdin.read()))") == "''\n"


def test_the_error_of_a_failed_program_has_exit_code_and_output() -> None:
    with pytest.raises(CommandFailed, match="exit code 3: no such flag") as caught:
        python("print('no such flag'); raise SystemExit(3)")
    assert (caught.value.code, caught.value.status) == ("command failed", 500)


@pytest.mark.parametrize("name", ["/nonexistent/program", "/", "/etc/hostname"])
def test_a_file_that_is_no_program_is_an_error(name: str) -> None:
    with pytest.raises(CommandFailed, match="can't be started"):
        output_of([name], environment={})


def test_time_is_bounded_also_for_a_child_that_keeps_the_pipe() -> None:
    code = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True)"
    )
    started = time.monotonic()
    with pytest.raises(CommandFailed, match="did not end within"):
        python(code, timeout_seconds=0.5)
    assert time.monotonic() - started < 10


def test_output_is_bounded() -> None:
    with pytest.raises(CommandFailed, match="more than 1000 bytes"):
        python("while True: print('y' * 100)", max_bytes=1000)


def test_output_up_to_the_bound_is_fine() -> None:
    assert len(python("print('y' * 999)", max_bytes=1000)) == 1000


def test_a_program_run_by_another_thread_ends_at_exit(tmp_path: Path) -> None:
    """It should not be left behind when the web process stops while it hangs."""
    told = tmp_path / "pid"
    asked = f"open({str(told)!r}, 'w').write(str(__import__('os').getpid())); import time; "
    asked += "time.sleep(600)"
    code = (
        "import os, sys, threading, time, django\n"
        "django.setup()\n"
        "from instances.backends.run_program import output_of\n"
        f"argv = [sys.executable, '-c', {asked!r}]\n"
        "ask = lambda: output_of(argv, environment=os.environ, timeout_seconds=60)\n"
        "threading.Thread(target=ask, daemon=True).start()\n"
        f"while not os.path.exists({str(told)!r}) or not open({str(told)!r}).read():\n"
        "    time.sleep(0.01)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(int(told.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
