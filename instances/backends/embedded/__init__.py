"""Which llama.cpp server runs where no ``llama-server`` is installed? The one inside xllamacpp.

The directory is a program of its own, which takes the flags of ``llama-server``::

    python -I instances/backends/embedded --model model.gguf --host 127.0.0.1 --port 8100

It imports the standard library and xllamacpp, nothing of llamactl.
"""

from __future__ import annotations

from pathlib import Path

PROGRAM = Path(__file__).parent
"""What to start: ``[sys.executable, "-I", str(PROGRAM), *arguments]``."""
