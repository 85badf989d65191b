"""Command line of ``manage.py doctor``: arguments, output as lines or JSON, exit code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence

from instances.backends.registry import config_sections
from llamactl.config.problems import ConfigError
from llamactl.config.sources import load
from llamactl.doctor.checks import run_checks
from llamactl.doctor.diagnosis import (
    Diagnosis,
    exit_code,
    problem,
    summary,
    to_json,
    to_lines,
    warning,
)

DESCRIPTION = (
    "Checks everything that llamactl needs, and prints each problem with its remedy. Changes"
    " nothing. Exit code 1 if something does not work."
)


def main(arguments: Sequence[str]) -> int:
    """Run the doctor; returns 1 if a check fails, else 0, also with warnings."""
    parser = argparse.ArgumentParser(
        prog="manage.py doctor",
        description=DESCRIPTION,
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return run(as_json=parser.parse_args(arguments).json)


def run(*, as_json: bool) -> int:
    logging.disable(logging.WARNING)  # an error of a check is a diagnosis, not a log line
    diagnoses: list[Diagnosis] = []
    try:
        for diagnosis in _diagnoses():
            diagnoses.append(diagnosis)
            if not as_json:
                sys.stdout.write("\n".join(to_lines(diagnosis)) + "\n")
                sys.stdout.flush()
    finally:
        logging.disable(logging.NOTSET)
    sys.stdout.write((to_json(diagnoses) if as_json else f"\n{summary(diagnoses)}") + "\n")
    return exit_code(diagnoses)


def _diagnoses() -> Iterable[Diagnosis]:
    try:
        config = load(backends=config_sections())
    except ConfigError as error:
        remedy = "manage.py check_config explains it"
        return [
            *(problem("config", line, remedy) for line in error.lines),
            *(warning("config", line, remedy) for line in error.warnings),
        ]
    return run_checks(config)
