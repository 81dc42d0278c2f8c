"""What a chapter puts on the page besides figures: steps of a derivation, and numbers for its prose."""

import html
from typing import Any

import sympy
from IPython.display import HTML, Math, display

GLUE = "application/papermill.record/"


def show(text: str, expression: Any = None) -> None:
    """Display one step: a sentence, and below it the expression as mathematics.

    Only typesets; the step itself is asserted in the cell, in the open.
    """
    display(HTML(f'<p class="amem-step">{html.escape(text)}</p>'))
    if expression is not None:
        latex = expression if isinstance(expression, str) else sympy.latex(expression)
        display(Math(r"\displaystyle " + latex))


def glue(name: str, value: Any, fmt: str = "") -> None:
    """Keep a value of the run under a name, for ``{glue:text}`name` `` in the book's prose.

    The format myst-nb reads, written without importing it: a chapter runs where it is absent.
    The value is formatted here, by ``fmt``, so that the cell and the prose say the same.
    """
    text = format(value, fmt) if fmt else str(value)
    data = {GLUE + "text/plain": repr(text)}  # quoted: myst-nb would read 1,000 as a pair of numbers
    display(data, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": GLUE}})
