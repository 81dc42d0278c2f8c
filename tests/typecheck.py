"""The type checker behind the shape annotations, named by tests/conftest.py."""

from collections.abc import Callable

from beartype import BeartypeConf, beartype

# a whole number is welcome where a float is asked for, as in PEP 484
check = beartype(conf=BeartypeConf(is_pep484_tower=True))

# These refuse malformed fields themselves, by ``ValueError``; tests must see that error, not the checker's.
VALIDATED = {"AssociationProblem.__init__", "ParticleSystem.__init__"}


def typed(function: Callable) -> Callable:
    """The function with its annotations checked at every call."""
    return function if function.__qualname__ in VALIDATED else check(function)
