"""``manage.py doctor``: checks of an installation, each problem with its remedy.

A module has one subject: a small dataclass of facts, a ``collect`` function that gathers the facts,
and a ``diagnose`` function with the rules, which turns facts into diagnoses.
"""
