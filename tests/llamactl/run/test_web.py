from __future__ import annotations

import resource
import subprocess
import sys


def test_a_web_process_may_open_as_many_files_as_the_system_lets_it() -> None:
    code = (
        "import resource as r; soft, hard = r.getrlimit(r.RLIMIT_NOFILE);"
        " r.setrlimit(r.RLIMIT_NOFILE, (min(256, hard), hard));"
        " from llamactl.run.web import allow_many_connections;"
        " allow_many_connections(); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert done.stdout.split() == [str(hard), str(hard)]
