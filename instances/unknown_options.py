"""Parts of an instance document without effect: a misspelt ``idle_timout``, another node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instances.options import InstanceOptions
from instances.preflight.findings import PreflightFinding, warning
from llamactl.core.nearest_name import nearest_name

MAX_FINDINGS = 20
SHOWN_CHARACTERS = 80


def unknown_options(
    document: Mapping[str, object], nodes: Sequence[str] | None = None
) -> list[PreflightFinding]:
    """Return a warning for each name that is no option; the option it stands for is not set.

    And one for a node of the document that is none of ``nodes``, on which the instance stays.
    """
    unknown = [name for name in document if name not in InstanceOptions.model_fields]
    findings = [_finding(name[:SHOWN_CHARACTERS]) for name in unknown[:MAX_FINDINGS]]
    if (more := len(unknown) - MAX_FINDINGS) > 0:
        findings.append(warning("options", f"{more} more names are no options and were ignored"))
    wanted = document.get("nodes")
    if nodes and isinstance(wanted, list) and wanted and set(wanted) != set(nodes):
        text = f"an instance stays on its node ({', '.join(nodes)}); this was ignored"
        findings.append(warning("nodes", text, "delete the instance and create it on the other"))
    return findings


def _finding(name: str) -> PreflightFinding:
    nearest = nearest_name(name, InstanceOptions.model_fields)
    return warning(
        name,
        "no option has this name; it was ignored",
        f"did you mean {nearest}?" if nearest else "options of the program go in backend_options",
    )
