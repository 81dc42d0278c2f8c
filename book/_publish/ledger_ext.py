"""Sphinx: the role {claim}`P-7` (a status chip) and the directive {ledger} (the whole ledger).

Both read what amem_core's checks left in the executed notebooks; any disagreement with
book/claims.yml becomes a warning, so that a build with -W fails.
"""

from collections import Counter
from pathlib import Path

import ledger_data as data
from docutils import nodes
from myst_nb.core import render
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.nodes import make_refnode

from amem_core.claims import EVIDENCE, MIME, SHOWS, SYMBOLS, VERDICTS, slug

logger = logging.getLogger(__name__)


def chip(verdict: str, lead: str = "") -> nodes.inline:
    """A verdict as colour, mark and word; `lead` (a claim's id) comes first."""
    box = nodes.inline(classes=["amem-chip", f"amem-{verdict.replace(' ', '-')}"])
    if lead:
        box += nodes.inline("", lead, classes=["amem-chip-id"])
        box += nodes.Text(" ")
    box += nodes.inline("", SYMBOLS.get(verdict, "?"), classes=["amem-chip-mark"])
    box += nodes.Text(f" {verdict}")
    return box


def crossref(kind: str, target: str, content: nodes.Node, **extra: str) -> addnodes.pending_xref:
    """A link resolved once every page is known: kind is amem-claim, amem-check or amem-chapter."""
    return addnodes.pending_xref("", content, refdomain="", reftype=kind, reftarget=target, refexplicit=True, **extra)


def _number(value: float | int | str) -> nodes.Text:
    return nodes.Text(f"{value:.4g}" if isinstance(value, float) else str(value))


class ClaimRole(SphinxRole):
    """{claim}`P-7`: the claim's chip, linked to its entry in the ledger."""

    def run(self):
        """Make the chip; an unknown id is a warning and stays as text."""
        ledger = self.env.app.amem_ledger
        self.env.amem_claim_pages.add(self.env.docname)
        self.env.note_dependency(str(ledger.claims_file))
        claim_id = self.text.strip()
        claim = ledger.claims.get(claim_id)
        if claim is None:
            known = ", ".join(ledger.claims) or "none"
            logger.warning(
                "{claim} names %r, which is no claim (known: %s)",
                claim_id, known, location=self.get_location(), type="amem", subtype="claim",
            )  # fmt: skip
            return [nodes.literal("", claim_id)], []
        return [crossref("amem-claim", claim_id, chip(claim["verdict"], claim_id))], []


class LedgerDirective(SphinxDirective):
    """{ledger}: counts, contents by chapter, and one anchored entry for each claim."""

    has_content = False

    def run(self):
        """Make the summary, the contents and one section for each chapter."""
        self.ledger = self.env.app.amem_ledger
        self.env.amem_ledger_page = self.env.docname
        for path in self.ledger.files:
            self.env.note_dependency(str(path))
        parts = [self._summary(), self._contents()]
        parts += [self._chapter(name) for name in self.ledger.chapters()]
        return parts

    def _summary(self) -> nodes.Node:
        claims = self.ledger.claims.values()
        verdicts = Counter(claim["verdict"] for claim in claims)
        kinds = Counter(check.evidence.get("evidence") for check in self.ledger.checks)
        box = nodes.container(classes=["amem-ledger-summary"])
        line = nodes.paragraph("", f"{len(claims)} claims: ")
        for verdict in VERDICTS:
            if verdicts[verdict]:
                line += chip(verdict, str(verdicts[verdict]))
                line += nodes.Text(" ")
        how = ", ".join(f"{kinds[kind]} {kind}" for kind in EVIDENCE if kinds[kind])
        box += [line, nodes.paragraph("", f"{len(self.ledger.checks)} executed checks: {how}.")]
        return box

    def _contents(self) -> nodes.Node:
        listing = nodes.bullet_list(classes=["amem-ledger-contents"])
        for name in self.ledger.chapters():
            line = nodes.paragraph()
            line += nodes.reference(
                "", "", *self._inline(self._title_of(name)), refid=f"ledger-{slug(name)}", internal=True
            )
            line += nodes.Text(": ")
            for claim_id, claim in self._claims_of(name):
                line += crossref("amem-claim", claim_id, chip(claim["verdict"], claim_id))
                line += nodes.Text(" ")
            listing += nodes.list_item("", line)
        return listing

    def _chapter(self, name: str) -> nodes.section:
        title = nodes.title("", "", *self._inline(self._title_of(name)))
        part = nodes.section("", title, ids=[f"ledger-{slug(name)}"])
        for claim_id, claim in self._claims_of(name):
            part += self._entry(claim_id, claim)
        return part

    def _entry(self, claim_id: str, claim: dict) -> nodes.section:
        title = nodes.title("", f"{claim_id} ", *self._inline(claim["title"]))
        box = nodes.section("", title, ids=[slug(claim_id)], classes=["amem-claim"])
        source = self._inline(claim["source"])
        box += nodes.paragraph("", "", chip(claim["verdict"]), nodes.Text(" "), *source, classes=["amem-claim-source"])
        facts = nodes.definition_list(classes=["amem-claim-facts"])
        facts += self._fact("Statement", self._parse(claim["statement"]))
        facts += self._fact("Hypotheses", self._parse(claim["hypotheses"]))
        if claim.get("corrected"):
            facts += self._fact("Corrected statement", self._parse(claim["corrected"]))
        same = "yes" if claim["faithful"] is True else str(claim["faithful"])
        facts += self._fact("Faithful to the printed statement", self._parse(same))
        facts += self._fact("Evidence obtained", [self._evidence(claim_id)])
        if claim["uses"]:
            facts += self._fact("Uses", [self._uses(claim["uses"])])
        told = crossref("amem-chapter", claim["chapter"], self._wrapped(self._title_of(claim["chapter"])))
        facts += self._fact("Told in", [nodes.paragraph("", "", told)])
        box += facts
        return box

    def _evidence(self, claim_id: str) -> nodes.Node:
        checks = self.ledger.checks_of(claim_id)
        if not checks:
            return nodes.paragraph("", "none")
        listing = nodes.bullet_list()
        for count, check in enumerate(checks, start=1):
            found = check.evidence
            line = nodes.paragraph()
            line += nodes.strong("", str(found.get("evidence", "")))
            shows = found.get("shows", "")
            line += nodes.Text(f": {SHOWS.get(shows, shows)}")
            for name in ("measured", "bound", "tolerance"):
                if found.get(name) is not None:
                    line += nodes.Text(f"; {name} ")
                    line += _number(found[name])
            if found.get("note"):
                line += nodes.Text(f"; {found['note']}")
            line += nodes.Text(" (")
            words = nodes.inline("", f"executed check {count}")
            line += crossref("amem-check", str(found.get("anchor", "")), words, chapter=check.notebook)
            line += nodes.Text(")")
            listing += nodes.list_item("", line)
        return listing

    def _uses(self, names: list[str]) -> nodes.paragraph:
        line = nodes.paragraph()
        for name in names:
            claim = self.ledger.claims.get(name)
            if claim is None:  # already a warning; the page still says what was written
                line += nodes.literal("", name)
            else:
                line += crossref("amem-claim", name, chip(claim["verdict"], name))
            line += nodes.Text(" ")
        return line

    def _claims_of(self, chapter: str) -> list[tuple[str, dict]]:
        return [item for item in self.ledger.claims.items() if item[1]["chapter"] == chapter]

    def _title_of(self, chapter: str) -> str:
        return self.ledger.titles.get(chapter, chapter)

    def _parse(self, text: str) -> list[nodes.Node]:
        return self.parse_text_to_nodes(str(text))

    def _inline(self, text: str) -> list[nodes.Node]:
        return self.parse_inline(" ".join(str(text).split()))[0]

    def _wrapped(self, text: str) -> nodes.inline:
        return nodes.inline("", "", *self._inline(text))

    def _fact(self, term: str, body: list[nodes.Node]) -> nodes.definition_list_item:
        return nodes.definition_list_item(
            "", nodes.term("", term), nodes.definition("", *body)
        )  # fmt: skip


class SilentEvidence:
    """A MyST-NB mime plugin: evidence is for this ledger; a page shows the chip beside it."""

    mime_priority_overrides = (("*", MIME, None),)

    @staticmethod
    def handle_mime(renderer, output, inline):
        """Render claim evidence as nothing; leave every other type alone."""
        return [] if output.mime_type == MIME else None


def silence_evidence() -> None:
    """Add the plugin; MyST-NB offers only entry points of installed packages, and this is none."""
    installed = render.load_mime_renders
    render.load_mime_renders = lambda: [*installed(), SilentEvidence]


def load_ledger(app) -> None:
    """Read everything once, before any page, and report what disagrees."""
    source = Path(app.srcdir)
    claims_file, executed = source / app.config.amem_claims, source / app.config.amem_executed
    ledger = data.load(claims_file, executed)
    ledger.claims_file = claims_file
    ledger.files = [claims_file, *data.notebooks(executed)]
    for problem in ledger.problems:
        logger.warning("%s", problem, location=str(claims_file), type="amem", subtype="ledger")
    app.amem_ledger = ledger
    env = app.env
    env.amem_claim_pages = getattr(env, "amem_claim_pages", set())
    env.amem_ledger_page = getattr(env, "amem_ledger_page", None)


def outdated(app, env, added, changed, removed) -> list[str]:
    """Pages whose chips or entries no longer match the files (Sphinx compares times, not contents)."""
    here = Path(__file__)
    code = [here, here.with_name("ledger_data.py")]
    marks = {
        "claims": data.fingerprint([app.amem_ledger.claims_file, *code]),
        "checks": data.fingerprint([*app.amem_ledger.files, *code]),
    }
    before, env.amem_marks = getattr(env, "amem_marks", marks), marks
    pages = set()
    if before["claims"] != marks["claims"]:
        pages |= env.amem_claim_pages
    if before["checks"] != marks["checks"] and env.amem_ledger_page:
        pages.add(env.amem_ledger_page)
    return sorted(pages & env.found_docs)


def purge(app, env, docname: str) -> None:
    """Forget a page that is read again or gone."""
    env.amem_claim_pages.discard(docname)
    if env.amem_ledger_page == docname:
        env.amem_ledger_page = None


def merge(app, env, docnames, other) -> None:
    """Gather what parallel readers saw."""
    env.amem_claim_pages |= other.amem_claim_pages
    env.amem_ledger_page = env.amem_ledger_page or other.amem_ledger_page


def resolve(app, env, node, content):
    """Turn crossref() nodes into links; None leaves Sphinx to warn."""
    kind, target = node["reftype"], node["reftarget"]
    if kind == "amem-claim":
        page, anchor = env.amem_ledger_page, slug(target)
    elif kind == "amem-chapter":
        page, anchor = page_of(env, target), ""
    elif kind == "amem-check":
        page, anchor = page_of(env, node["chapter"]), target
    else:
        return None
    if page is None:
        logger.warning("no page for %s %r", kind, target, location=node, type="amem", subtype="link")
        return content
    return make_refnode(app.builder, node["refdoc"], page, anchor, content)


def page_of(env, chapter: str) -> str | None:
    """The page that a chapter's notebook became: book/03-… for 03-…"""
    return next((doc for doc in sorted(env.found_docs) if doc.split("/")[-1] == chapter), None)


def setup(app):
    """Register configuration values, the role, the directive and the events."""
    silence_evidence()
    app.add_config_value("amem_claims", "book/claims.yml", "env", [str])
    app.add_config_value("amem_executed", "build/executed", "env", [str])
    app.add_role("claim", ClaimRole())
    app.add_directive("ledger", LedgerDirective)
    app.connect("builder-inited", load_ledger)
    app.connect("env-get-outdated", outdated)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("missing-reference", resolve)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
