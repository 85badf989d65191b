"""``manage.py doctor`` as a program: arguments in, lines or JSON out, an exit code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence

from instances.backends import config_sections
from llamactl.config.problems import ConfigError
from llamactl.config.sources import load
from llamactl.doctor.examination import examine
from llamactl.doctor.findings import (
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
    """0: all is well, or merely doubtful. 1: something does not work."""
    parser = argparse.ArgumentParser(
        prog="manage.py doctor",
        description=DESCRIPTION,
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return run(as_json=parser.parse_args(arguments).json)


def run(*, as_json: bool) -> int:
    logging.disable(logging.WARNING)  # what a check runs into is its finding
    findings: list[Diagnosis] = []
    try:
        for finding in _findings():
            findings.append(finding)
            if not as_json:
                sys.stdout.write("\n".join(to_lines(finding)) + "\n")
                sys.stdout.flush()
    finally:
        logging.disable(logging.NOTSET)
    sys.stdout.write((to_json(findings) if as_json else f"\n{summary(findings)}") + "\n")
    return exit_code(findings)


def _findings() -> Iterable[Diagnosis]:
    try:
        config = load(backends=config_sections())
    except ConfigError as error:
        remedy = "manage.py check_config explains it"
        return [
            *(problem("config", line, remedy) for line in error.lines),
            *(warning("config", line, remedy) for line in error.warnings),
        ]
    return examine(config)
