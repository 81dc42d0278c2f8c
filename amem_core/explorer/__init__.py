"""Interactive figures that answer the reader's hand, in a live notebook and in the published page.

An ``Explorer`` is declared by its parameters, views and a function that computes what they show.
In a notebook every move calls that function; in static HTML the same ES module shows what it
gave at build time, or takes the planar gradient step itself (``planar_explorer``).
"""

from amem_core.explorer.planar import planar_explorer
from amem_core.explorer.spec import Parameter, view
from amem_core.explorer.widget import Explorer
from amem_core.landscape.planar import planar_frame

__all__ = ["Explorer", "Parameter", "planar_explorer", "planar_frame", "view"]
