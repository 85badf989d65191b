"""Places in the checkout that tests name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
FAKE_BACKEND = Path(__file__).parent / "fake_backend" / "program.py"
"""The program that stands in for a backend in tests."""
