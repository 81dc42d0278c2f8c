"""Sphinx: MathJax from the installed package sphinx-mathjax-offline, and nothing from another host.

Used as an extension itself, that package copies 24 MB; here go only the one script that is loaded,
its fonts, and the TeX extensions that it may load on demand.
"""

import shutil
from importlib import metadata
from pathlib import Path

PACKAGE = "sphinx-mathjax-offline"
SCRIPT = "tex-chtml.js"
FONTS = "output/chtml/fonts/woff-v2"
EXTENSIONS = "input/tex/extensions"
UNUSED = {"all-packages.js"}  # every extension once more, in one file

# The menu and its speech tools are the parts that would fetch more files.
OPTIONS = {
    "enableMenu": False,
    "menuOptions": {"settings": {"explorer": False, "collapsible": False, "assistiveMml": True}},
}


def mathjax_folder() -> Path:
    """Where the installed package keeps MathJax (its folder's name is no valid module name)."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise RuntimeError(f"the package {PACKAGE} is missing: install the extra [book]") from None
    for file in files:
        if file.name == SCRIPT:
            return Path(file.locate()).resolve().parent
    raise RuntimeError(f"the package {PACKAGE} holds no {SCRIPT}")


def needed_files(source: Path) -> list[Path]:
    """The files to copy, relative to `source`."""
    files = [source / SCRIPT, *sorted((source / FONTS).glob("*.woff"))]
    files += [p for p in sorted((source / EXTENSIONS).glob("*.js")) if p.name not in UNUSED]
    return [path.relative_to(source) for path in files]


def copy_mathjax(target: Path) -> None:
    """Copy what is missing or changed."""
    source = mathjax_folder()
    for name in needed_files(source):
        copy = target / name
        if not copy.exists() or copy.stat().st_size != (source / name).stat().st_size:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy)


def configure(app, config) -> None:
    """Point Sphinx to the copy and switch the menu off, keeping macros and other settings."""
    config.mathjax_path = f"mathjax/{SCRIPT}"
    settings = dict(config.mathjax3_config or {})
    settings["options"] = {**settings.get("options", {}), **OPTIONS}
    config.mathjax3_config = settings


def copy_after_build(app, error) -> None:
    """Put MathJax beside the built pages."""
    if error is None and app.builder.format == "html":
        copy_mathjax(Path(app.outdir) / "_static" / "mathjax")


def setup(app):
    """Register the two events."""
    app.setup_extension("sphinx.ext.mathjax")
    app.connect("config-inited", configure)
    app.connect("build-finished", copy_after_build)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
