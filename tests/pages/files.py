"""What can be read from the built files themselves: links, anchors, addresses of other hosts, weights."""

import gzip
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes by which a page loads something at once; a plain link (a href) loads nothing.
LOADS = {
    "script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"),
    "video": ("src", "poster"), "audio": ("src",), "object": ("data",), "embed": ("src",), "link": ("href",),
}  # fmt: skip
POINTS_ONLY = {"canonical", "license", "author", "next", "prev", "search", "index", "help", "edit", "me"}
REMOTE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
CSS_REMOTE = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class Page(HTMLParser):
    """The anchors, links and loaded addresses of one HTML file."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.ids: set[str] = set()
        self.twice: list[str] = []
        self.links: list[str] = []
        self.remote: list[str] = []
        self.redirect = False
        self.title = ""
        self.inside = ""
        self.feed(text)

    def handle_data(self, data: str) -> None:
        """Gather the page's title."""
        if self.inside == "title":
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        """Leave the title."""
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what one tag names, points to and loads."""
        given = {name: value or "" for name, value in attrs}
        self.inside = "" if self.title else tag  # a drawing may hold a title too
        if given.get("id"):
            if given["id"] in self.ids:
                self.twice.append(given["id"])
            self.ids.add(given["id"])
        if tag == "a" and given.get("name"):
            self.ids.add(given["name"])
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.redirect = True
            self.links.append(given.get("content", "").split("=", 1)[-1].strip("'\" "))
        self.links += [given[name] for name in ("href", "src", "data", "poster") if name in given]
        points = tag == "link" and set(given.get("rel", "").split()) <= POINTS_ONLY
        if not points:
            self.remote += [given[name] for name in LOADS.get(tag, ()) if REMOTE.match(given.get(name, ""))]
        self.remote += CSS_REMOTE.findall(given.get("style", ""))


def pages(folder: Path) -> list[Path]:
    """Every page of the site (templates in _static are none)."""
    return sorted(p for p in folder.rglob("*.html") if "_static" not in p.relative_to(folder).parts)


@cache
def parsed(path: Path) -> Page:
    """The page, read once."""
    return Page(path.read_text(encoding="utf-8"))


def broken_links(folder: Path) -> list[str]:
    """Links whose file or anchor does not exist, and anchors given twice."""
    found = []
    for path in pages(folder):
        name = path.relative_to(folder).as_posix()
        found += [f"{name}: the id {twice!r} is given twice" for twice in parsed(path).twice]
        for link in dict.fromkeys(parsed(path).links):
            fault = _fault(path, link, folder)
            if fault:
                found.append(f"{name}: {link} {fault}")
    return found


def _fault(path: Path, link: str, folder: Path) -> str:
    address = urlsplit(link.strip())
    if address.scheme or address.netloc or link.strip() in ("", "#"):
        return ""
    target = (path.parent / unquote(address.path)).resolve() if address.path else path.resolve()
    if address.path.startswith("/"):
        return "starts at the host's root, so it breaks below a folder and from file://"
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return "leads to no file"
    if not target.is_relative_to(folder.resolve()):
        return "leads out of the book"
    anchor = unquote(address.fragment)
    if anchor and anchor != "top" and target.suffix == ".html" and anchor not in parsed(target).ids:
        return "leads to no such anchor"
    return ""


def remote_addresses(folder: Path) -> list[str]:
    """Addresses of other hosts that a page or a style sheet would load."""
    found = [f"{path.relative_to(folder)}: {url}" for path in pages(folder) for url in parsed(path).remote]
    for sheet in sorted(folder.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        found += [f"{sheet.relative_to(folder)}: {url}" for url in CSS_REMOTE.findall(text)]
    return found


@cache
def gzipped(path: Path) -> int:
    """Size of a file in bytes as a server would send it."""
    return len(gzip.compress(path.read_bytes(), compresslevel=6, mtime=0))
