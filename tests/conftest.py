"""Shapes checked, examples drawn the same way each time, one torch thread.

``AMEM_SHAPE_CHECKS=0`` leaves the package as a user imports it; the benchmarks run so.
"""

import os

import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (jaxtyping looks the name below up, and imports only its first part)

if os.environ.get("AMEM_SHAPE_CHECKS", "1") != "0":
    install_import_hook("amem_core", "tests.typecheck.typed")
    # small tensors: threads cost more than they give, and sums in one order are the same everywhere
    torch.set_num_threads(1)

# deadline: a shared machine pauses at will; derandomised: the same examples on every machine
options = {"database": None, "deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("amem", derandomize=True, max_examples=60, **options)
settings.register_profile("hunt", max_examples=2000, **options)  # pytest --hypothesis-profile=hunt
settings.load_profile("amem")


def pytest_collection_modifyitems(items) -> None:
    """The pages first: they take longest, and two workers then end together."""
    items.sort(key=lambda item: item.path.name != "test_pages.py")
