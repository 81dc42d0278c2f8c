"""Explorers of the plane: two classes, two dimensions, up to 100 tokens, all of it under the hand."""

from inspect import signature
from typing import Any

from amem_core.explorer.widget import Explorer
from amem_core.landscape.planar import planar_frame
from amem_core.validation import require


def planar_explorer(name: str, **given: Any) -> Explorer:
    """An explorer whose start, embeddings and frequencies can be dragged, in the page as in a notebook.

    ``given`` are the arguments of ``planar_frame`` (``start`` is the origin by default; ``minimisers`` puts a cross
    at the loss's and outlines the sectors of the 0-1 loss's) and the rest of ``Explorer``'s. Parameters may be named
    ``rate``, ``steps``, and for two tokens ``alpha`` (correlation of the inputs) and ``p1``; presets may
    set these and whatever ``planar_frame`` takes.
    """
    state = {"start": [0.0, 0.0], "kappa": 2.0}
    state |= {key: given.pop(key) for key in signature(planar_frame).parameters if key in given}
    require(len(state["angles"]) <= 100, "angles", f"{len(state['angles'])} tokens", "at most 100")
    return Explorer(name, simulate=planar_frame, steps=state["steps"], planar=state, **given)
