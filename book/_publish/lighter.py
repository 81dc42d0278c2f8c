"""What the pages of one site can share: the glyphs of their figures, and the explorers' module."""

import re
from pathlib import Path

from amem_core.explorer.widget import MODULE

SCRIPT = "explorer.js"
FIGURE = re.compile(r'<div class="amem-figure" id="([a-z0-9-]+)">.*?</svg>\s*</div>', re.DOTALL)
GLYPH = re.compile(r'<path id="NAME-((?:DejaVu|Cm|STIX)[A-Za-z0-9]*-[0-9a-f]+)" ([^>]*)/>\s*')


def share_glyphs(page: str) -> str:
    """Keep each glyph that the figures of a page draw once, in a hidden svg before the first figure."""
    glyphs: dict[str, str] = {}

    def take(figure: re.Match) -> str:
        name, text = figure[1], figure[0]
        pattern = re.compile(GLYPH.pattern.replace("NAME", re.escape(name)))
        for glyph, shape in pattern.findall(text):
            if glyphs.setdefault(glyph, shape) != shape:
                raise ValueError(f"{name}: the glyph {glyph} is drawn in two ways on one page")
        text = pattern.sub("", text)
        return re.sub(rf'href="#{name}-((?:DejaVu|Cm|STIX)[A-Za-z0-9]*-[0-9a-f]+)"', r'href="#glyph-\1"', text)

    lighter = FIGURE.sub(take, page)
    if not glyphs:
        return page
    drawn = "".join(f'<path id="glyph-{name}" {shape}/>' for name, shape in glyphs.items())
    hidden = f'<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>{drawn}</defs></svg>'
    at = FIGURE.search(lighter).start()
    return lighter[:at] + hidden + lighter[at:]


def share_module(page: str, root: str) -> str:
    """Load the explorers' module from the site's own folder; a classic script, since file:// has no modules."""
    opening = f'<script type="module">{MODULE}'
    if opening not in page:
        return page
    page = page.replace(opening, '<script type="module">const { render } = window.amemExplorer;')
    return page.replace("</head>", f'<script defer src="{root}_static/{SCRIPT}"></script>\n</head>', 1)


def write_module(static: Path) -> None:
    """The module as a classic script."""
    text = "window.amemExplorer = (() => {\n" + MODULE + "\nreturn { render };\n})();\n"
    (static / SCRIPT).write_text(text, encoding="utf-8")
