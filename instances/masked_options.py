"""Masked options of an instance, for users with the view permission alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamactl.masking import MASK, is_secret_name, mask_arguments, mask_document, mask_values


def mask_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Mask likely secrets in an options document.

    A variable or a flag that llamactl does not know may hold a secret under any name
    (``MY_PWD``, ``--authz``), so every value of ``environment`` and ``extra_args`` is masked. The
    other options are masked by their names, and by what they hold: URLs with passwords, headers.
    """
    shown: dict[str, Any] = mask_document(dict(options))
    if environment := options.get("environment"):
        shown["environment"] = mask_values(environment)
    backend_options = dict(options.get("backend_options", {}))
    extra = backend_options.pop("extra_args", None)
    shown["backend_options"] = {
        name: _masked_option(name, value) for name, value in backend_options.items()
    }
    if extra is not None:
        shown["backend_options"]["extra_args"] = _masked_values(extra)
    return shown


def _masked_option(name: str, value: Any) -> Any:
    if isinstance(value, str) and value and not is_secret_name(name):
        return mask_arguments([value])[0]
    if isinstance(value, list) and not is_secret_name(name):
        return [_masked_option(name, each) for each in value]
    return mask_document(value, name)


def _masked_values(value: Any) -> Any:
    """Mask every text and number, so that only the names and the switches stay."""
    if isinstance(value, dict):
        return {name: _masked_values(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_masked_values(each) for each in value]
    return value if isinstance(value, bool) or value in ("", None) else MASK
