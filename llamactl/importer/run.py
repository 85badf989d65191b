"""The whole import, and the notice of a pending import at the start."""

from __future__ import annotations

from pathlib import Path

from django.core.management.color import no_style
from django.db import connection, transaction

from instances.models import Instance
from keys.models import ImportedHash, InferenceKey
from llamactl.config import AppConfig
from llamactl.config.database_file import go_file
from llamactl.importer.go_database import GoDatabase, UnreadableGoDatabase, read
from llamactl.importer.instances import import_instances
from llamactl.importer.keys import import_keys
from llamactl.importer.report import Outcome, Report

COMMAND = "manage.py import_llamactl"


class _Undone(Exception):
    """Rolls the transaction of a dry run back."""


def import_all(source: GoDatabase, *, is_dry_run: bool) -> Report:
    """Import instances and keys in one transaction. A dry run does the same, and undoes it."""
    report = Report()
    try:
        with transaction.atomic():
            report.instances, instances = import_instances(source.instances)
            new = {entry.name for entry in report.instances if entry.outcome is Outcome.IMPORTED}
            new_ids = {each.pk for each in instances.values() if each.name in new}
            report.keys = import_keys(source.keys, instances, new_ids)
            _continue_ids_after_the_imported()
            if is_dry_run:
                raise _Undone
    except _Undone:
        pass
    return report


def _continue_ids_after_the_imported() -> None:
    """Let PostgreSQL's sequences continue after the ids that were given explicitly."""
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), [Instance, InferenceKey]):
            cursor.execute(statement)


def source_of(config: AppConfig) -> Path | None:
    """Return the Go database beside, or in, the file of ``database.path``."""
    return go_file(config.database.path)


def notice(config: AppConfig) -> str:
    """Describe what a Go database holds that is not imported yet; empty if there is nothing."""
    path = source_of(config)
    if path is None:
        return ""
    try:
        source = read(path)
    except UnreadableGoDatabase as error:
        return f"{error}; {COMMAND} imports it"
    names = set(Instance.objects.values_list("name", flat=True))
    hashes = set(ImportedHash.objects.values_list("argon2", flat=True))
    instances = sum(go.name not in names for go in source.instances)
    keys = sum(go.argon2 not in hashes for go in source.keys)
    if not instances and not keys:
        return ""
    counts = f"{_counted(instances, 'instance')} and {_counted(keys, 'key')}"
    return (
        f"{path} of the Go llamactl holds {counts} that are not imported yet:"
        f" {COMMAND} imports them, {COMMAND} --dry-run only shows what would be imported"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
