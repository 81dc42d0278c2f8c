"""What the loss looks like: sections, sharpness maps, minimisers, the maximum-margin solution, hitting times."""

from amem_core.landscape.flow_time import flow_hitting_time
from amem_core.landscape.hitting import NEVER, hitting_times
from amem_core.landscape.margin import MaxMargin, max_margin
from amem_core.landscape.minimum import LossMinimum, minimise_loss
from amem_core.landscape.reading import matrix_of_reading, reading
from amem_core.landscape.recall_times import recall_times
from amem_core.landscape.sections import Section, planar_directions, section
from amem_core.landscape.separability import separable
from amem_core.landscape.sharpness_map import sharpness_map
from amem_core.landscape.zero_one import ZeroOneMinimum, minimise_zero_one

__all__ = [
    "NEVER",
    "LossMinimum",
    "MaxMargin",
    "Section",
    "ZeroOneMinimum",
    "flow_hitting_time",
    "hitting_times",
    "matrix_of_reading",
    "max_margin",
    "minimise_loss",
    "minimise_zero_one",
    "planar_directions",
    "reading",
    "recall_times",
    "section",
    "separable",
    "sharpness_map",
]
