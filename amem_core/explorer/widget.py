"""The widget: live in a notebook through anywidget, alive in static HTML through the same module."""

import html
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import anywidget
import traitlets
from matplotlib.figure import Figure

from amem_core.explorer.spec import Parameter
from amem_core.plots import PALETTE, to_svg
from amem_core.validation import require

ORDER = ("dom", "planar", "lines", "plane", "bars", "heat", "sequence", "explorer")
_here = files("amem_core.explorer")
# every page carries the source: without indentation and lines that are comments it is a fifth shorter
_source = "\n".join((_here / "js" / f"{part}.js").read_text(encoding="utf-8") for part in ORDER)
MODULE = re.sub(r"^\s+|^\s*//.*\n", "", _source, flags=re.MULTILINE)
STYLE = re.sub(r"^\s+", "", (_here / "explorer.css").read_text(encoding="utf-8"), flags=re.MULTILINE)

MOUNT = """
const data = JSON.parse(document.getElementById("{name}-data").textContent);
render({{ model: {{ static: true, get: (key) => data[key], set() {{}}, on() {{}}, off() {{}}, save_changes() {{}} }},
  el: document.getElementById("{name}") }});
"""


class Explorer(anywidget.AnyWidget):
    """An interactive figure.

    Parameters
    ----------
    name : unique on its page; lower-case letters, digits and hyphens
    title : what it shows, read by screen readers
    still : the opening picture as a matplotlib figure, shown where no script runs; closed here
    alt : what the opening picture shows, for those who cannot see it
    parameters : the sliders
    views : made by ``view``, in the order in which they are read
    simulate : ``f(**state) -> frame``, called with every combination of the parameters' values
        when the page is built, and on every move where a kernel lives
    presets : name to values of the state
    steps : length of the time the cursor runs through; 0 for a figure without time

    Raises
    ------
    ValueError
        For a bad name, presets outside the sliders, and frames with values that are not finite.
    """

    spec = traitlets.Dict().tag(sync=True)
    request = traitlets.Dict().tag(sync=True)
    reply = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        name: str,
        *,
        title: str,
        still: Figure,
        alt: str,
        parameters: Sequence[Parameter],
        views: Sequence[Mapping[str, Any]],
        simulate: Callable[..., dict[str, Any]],
        presets: Mapping[str, Mapping[str, Any]] | None = None,
        steps: int = 0,
        planar: Mapping[str, Any] | None = None,
    ) -> None:
        require(bool(re.fullmatch(r"[a-z][a-z0-9-]*", name)), "name", repr(name), "lower-case letters, digits, hyphens")
        require(bool(alt.strip()), "alt", repr(alt), "a description of the opening picture")
        for q, values in itertools.product(parameters, (presets or {}).values()):
            q.validate(values.get(q.name, q.start))
        state = dict(planar) if planar else {q.name: q.start for q in parameters}
        self.simulate, self.alt = simulate, alt
        self.still = to_svg(still, f"{name}-still")
        frames = {} if planar else self._table(parameters)
        clean(simulate(**state))  # the start must compute
        spec = {"name": name, "title": title, "palette": list(PALETTE), "steps": steps, "planar": bool(planar)}
        spec |= {"parameters": [q.spec() for q in parameters], "views": list(views), "state": state}
        radius = max((v["radius"] for v in views if v["type"] == "plane"), default=0)
        limits = {"start": [-radius, radius], "p": [0, 1], "angles": [-7, 7]}
        spec |= {"presets": dict(presets or {}), "frames": frames, "limits": limits}
        self.add_traits(
            _esm=traitlets.Unicode(MODULE + "\nexport default { render };\n").tag(sync=True),
            _css=traitlets.Unicode(STYLE).tag(sync=True),
        )
        super().__init__(spec=spec)
        self.observe(self._answer, "request")

    def _table(self, parameters: Sequence[Parameter]) -> dict[str, Any]:
        frames = {}
        for at in itertools.product(*(range(len(q.values)) for q in parameters)):
            state = {q.name: q.values[k] for q, k in zip(parameters, at, strict=True)}
            frames[",".join(map(str, at))] = clean(self.simulate(**state))
        return frames

    def _answer(self, change: Mapping[str, Any]) -> None:
        number = change["new"]["number"]
        state = {k: v for k, v in change["new"]["state"].items() if k != "cursor"}
        try:
            self.reply = {"number": number, "frame": clean(self.simulate(**state), digits=17)}
        except (ValueError, ArithmeticError) as error:
            self.reply = {"number": number, "error": str(error)}

    def static_html(self) -> str:
        """The explorer as HTML that needs no kernel; a picture where no script runs."""
        name = f"explorer-{self.spec['name']}"  # no heading's anchor is called so
        data = json.dumps({"spec": self.spec}, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        return (
            f'<div class="amem-explorer"><style>{STYLE}</style>'
            f'<div id="{name}"><div role="img" aria-label="{html.escape(self.alt)}">{self.still}</div></div>'
            f'<script type="application/json" id="{name}-data">{data}</script>'
            f'<script type="module">{MODULE}{MOUNT.format(name=name)}</script></div>'
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/html": self.static_html(), "text/plain": self.alt}, metadata


def clean(frame: Any, digits: int = 5) -> Any:
    """A frame as plain JSON values, rounded for the page; anything not finite is refused."""
    if isinstance(frame, Mapping):
        return {k: clean(v, digits) for k, v in frame.items()}
    frame = frame.tolist() if hasattr(frame, "tolist") else frame
    if isinstance(frame, list | tuple):
        return [clean(v, digits) for v in frame]
    if isinstance(frame, float):
        require(math.isfinite(frame), "frame", frame, "finite values")
        return float(f"{frame:.{digits}g}")
    return frame
