"""What the loss looks like: sections, minimisers, the maximum-margin solution, hitting times on grids."""

from amem_core.landscape.hitting import NEVER, hitting_times
from amem_core.landscape.margin import MaxMargin, max_margin
from amem_core.landscape.sections import Section, planar_directions, section

__all__ = [
    "NEVER",
    "MaxMargin",
    "Section",
    "hitting_times",
    "max_margin",
    "planar_directions",
    "section",
]
