"""The run-time type checker that conftest.py applies to functions of modules with tensors."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""Accepts an int where a float is annotated, as static checkers do (PEP 484)."""
