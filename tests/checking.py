"""The type checker that conftest.py puts on every function of the package."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""As static checkers do (PEP 484), it lets an int stand where a float is asked for."""
