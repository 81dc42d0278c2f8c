"""Sphinx: what every page shares: style sheet, script, policy, settings, and no second copy of the icons."""

import re
from pathlib import Path

from lighter import share_glyphs, share_module, write_module
from sphinx.util import logging

STATIC = Path(__file__).resolve().parent.parent / "_static"
STYLE, SCRIPT = "amem.css", "amem.js"
# The theme draws its icons from web fonts, and loads 1.5 MB of script that could draw them once more.
ICONS = re.compile(r'\s*<script defer src="[^"]*scripts/fontawesome\.js[^"]*"></script>')
# Nothing may come from another host; `file:` lets a book read from a folder load its own files.
POLICY = "default-src 'self' file: data: blob: 'unsafe-inline'; object-src 'none'; base-uri 'self' file:"
logger = logging.getLogger(__name__)


def configure(app, config) -> None:
    """Add book/_static once, whether or not _config.yml names it too, and the settings."""
    folders = {(Path(app.confdir) / folder).resolve() for folder in config.html_static_path}
    if STATIC not in folders:
        config.html_static_path.append(str(STATIC))
    if STYLE not in config.html_css_files:
        config.html_css_files.append(STYLE)
    if SCRIPT not in config.html_js_files:
        config.html_js_files.append((SCRIPT, {"defer": "defer"}))
    config.html_context.setdefault("default_mode", "auto")  # without it the theme logs an error on every page
    config.html_domain_indices = False  # an index of theorem labels, which no reader seeks


def shut(app, pagename, templatename, context, doctree) -> None:
    """Write the Content-Security-Policy into the head, before anything that loads."""
    meta = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />'
    context["metatags"] = meta + "\n" + context.get("metatags", "")


def finish(app, error) -> None:
    """Take the icons' script out of the pages and source maps out of the folder; make reference lists lists."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    for page in out.rglob("*.html"):
        if "_static" in page.relative_to(out).parts:
            continue
        text = page.read_text(encoding="utf-8")
        lighter = ICONS.sub("", text)
        if "fontawesome.js" in lighter:
            logger.warning("the theme loads fontawesome.js in a new way: see page_ext.py", location=str(page))
        # docutils writes a role that ARIA has withdrawn, inside a list that then has no items
        finished = lighter.replace('role="doc-biblioentry"', 'role="listitem"')
        finished = finished.replace(' id="proof-content"', "")  # sphinx-proof gives every box the same id
        finished = share_glyphs(share_module(finished, "../" * (len(page.relative_to(out).parts) - 1)))
        if finished != text:
            page.write_text(finished, encoding="utf-8")
    write_module(out / "_static")
    scripts = out / "_static" / "scripts"
    for unused in [*scripts.glob("fontawesome.js*"), *(out / "_static").rglob("*.map")]:
        unused.unlink(missing_ok=True)


def setup(app):
    """Register the events."""
    app.connect("config-inited", configure, priority=100)
    app.connect("html-page-context", shut)
    app.connect("build-finished", finish, priority=900)  # after the theme has written its files
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
