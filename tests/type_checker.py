"""The run-time type checker that conftest.py applies to functions of modules with tensors."""

from typing import Any

from beartype import BeartypeConf, BeartypeHintOverrides, beartype

_OVERRIDES: Any = BeartypeHintOverrides  # its class has no types

typechecked = beartype(conf=BeartypeConf(hint_overrides=_OVERRIDES({int: object, float: object})))
"""Checks arrays, and whatever else is annotated, but not single numbers: options take those of any
type, which the package checks itself."""
