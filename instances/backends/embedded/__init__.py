"""The embedded llama.cpp server, xllamacpp's, for nodes without an installed ``llama-server``.

The directory is a program of its own, which takes the flags of ``llama-server``::

    python -I instances/backends/embedded --model model.gguf --host 127.0.0.1 --port 8100

The program imports the standard library and xllamacpp, nothing of llamactl. Started by its path,
its modules are no package, so they import each other in two ways.
"""

from __future__ import annotations

from pathlib import Path

PROGRAM = Path(__file__).parent
"""The program: ``[sys.executable, "-I", str(PROGRAM), *arguments]``."""
