"""Claims tested where they are told: a chip for the reader, evidence for the ledger.

``check`` asserts a fact in a chapter. What it leaves in the executed notebook is compared with
``book/claims.yml`` by ``reconcile`` when the book is built.
"""

import html
import math
import numbers
from collections import Counter
from typing import Any

from IPython.display import display

MIME = "application/vnd.amem.claim+json"

#: what a check may show about the statement as printed, and the words of its chip
SHOWS = {
    "holds": "holds as stated",
    "fails": "fails as stated",
    "corrected": "corrected statement holds",
    "observed": "observed",
    "absent": "not reproduced",
}
EVIDENCE = ("symbolic", "numerical", "recorded")
VERDICTS = ("holds", "corrected", "refuted", "observed", "not reproduced")
SYMBOLS = {"holds": "✓", "corrected": "≈", "refuted": "✗", "observed": "○", "not reproduced": "–"}

_count: Counter = Counter()


def check(
    claim_id: str,
    holds: Any,
    *,
    shows: str = "holds",
    measured: Any = None,
    bound: Any = None,
    tolerance: Any = None,
    evidence: str = "numerical",
    note: str = "",
) -> None:
    """Assert a fact about a claim, show its status chip, and leave the evidence in the output.

    Parameters
    ----------
    claim_id : the claim's number in the ledger, such as ``"P-7"``
    holds : the fact, a truth value of Python, numpy, torch or sympy; false raises ``AssertionError``
    shows : what the fact says of the statement as printed: that it ``"holds"``, that it
        ``"fails"`` (a counterexample), that the ``"corrected"`` statement holds, that the
        behaviour is ``"observed"``, or is ``"absent"`` where print reports it
    measured, bound, tolerance : what was found, what it was compared with, and the slack: finite
        numbers, texts or expressions of sympy
    evidence : ``"symbolic"``, ``"numerical"`` or ``"recorded"``
    note : one line for the reader

    Raises
    ------
    AssertionError
        If ``holds`` is not true.
    ValueError
        For an empty id, an unknown ``shows`` or ``evidence``, a value that is not finite, and a
        fact that is not a truth value.
    """
    if not claim_id or claim_id.strip() != claim_id:
        raise ValueError(f"claim_id: found {claim_id!r}, allowed: the id of a claim in the ledger")
    for name, value, allowed in (("shows", shows, tuple(SHOWS)), ("evidence", evidence, EVIDENCE)):
        if value not in allowed:
            raise ValueError(f"{name}: found {value!r}, allowed: {', '.join(allowed)}")
    values = {"measured": measured, "bound": bound, "tolerance": tolerance}
    values = {name: _plain(name, value) for name, value in values.items()}
    truth = holds.item() if hasattr(holds, "item") else holds
    if not (isinstance(truth, bool) or getattr(truth, "is_Boolean", False)):
        raise ValueError(f"holds: found {holds!r}, allowed: true or false")  # a bare number is a comparison forgotten
    if not truth:
        detail = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
        raise AssertionError(f"{claim_id}: the check that it {SHOWS[shows]} failed ({detail}) {note}".rstrip())
    _count[claim_id] += 1
    record = {"claim": claim_id, "shows": shows, **values, "evidence": evidence, "note": note}
    record["anchor"] = f"check-{slug(claim_id)}-{_count[claim_id]}"
    display({"text/html": chip(record), "text/plain": _sentence(record), MIME: record}, raw=True)


def slug(claim_id: str) -> str:
    """The claim's anchor in the ledger.

    >>> slug("P-7"), slug("T2′")
    ('p-7', 't2-prime')
    """
    text = claim_id.lower().replace("′", "-prime").replace("'", "-prime")
    return "".join(c if c.isalnum() or c == "-" else "-" for c in text)


def chip(record: dict[str, Any]) -> str:
    """The chip of one check as HTML: status, claim linked to the ledger, and the numbers."""
    colour = {"fails": "refuted", "absent": "not-reproduced"}.get(record["shows"], record["shows"])
    mark = SYMBOLS[colour.replace("-", " ")]
    numbers_found = html.escape(", ".join(_numbers(record)))
    note = html.escape(record["note"])
    return (
        f'<div class="amem-check" id="{record["anchor"]}">'
        f'<a class="amem-chip amem-{colour}" href="ledger.html#{slug(record["claim"])}">'
        f"{mark} {html.escape(record['claim'])} {SHOWS[record['shows']]}</a>"
        f'<span class="amem-check-text">{" · ".join(t for t in (note, numbers_found) if t)}</span></div>'
    )


def verdict_of(shown: set[str]) -> str | None:
    """The verdict that a set of checks supports, or ``None`` where they contradict each other.

    >>> verdict_of({"holds"}), verdict_of({"fails"}), verdict_of({"fails", "corrected"})
    ('holds', 'refuted', 'corrected')
    >>> verdict_of({"holds", "fails"}) is None
    True
    """
    table = {
        frozenset({"holds"}): "holds",
        frozenset({"fails"}): "refuted",
        frozenset({"fails", "corrected"}): "corrected",
        frozenset({"observed"}): "observed",
        frozenset({"absent"}): "not reproduced",
    }
    return table.get(frozenset(shown))


def reconcile(claims: dict[str, dict[str, Any]], evidence: list[dict[str, Any]]) -> list[str]:
    """Every disagreement between the ledger's claims and the executed checks, as sentences.

    ``claims`` maps ids to entries with a ``verdict``; ``evidence`` holds the records that
    ``check`` left. Empty when all agree.

    >>> reconcile({"P-1": {"verdict": "holds"}}, [])
    ['P-1: stands in the ledger but no executed check tests it']
    """
    shown: dict[str, set[str]] = {}
    for record in evidence:
        shown.setdefault(record["claim"], set()).add(record["shows"])
    problems = [f"{name}: checked in a chapter but absent from the ledger" for name in shown if name not in claims]
    for name, entry in claims.items():
        verdict = entry.get("verdict")
        if verdict not in VERDICTS:
            problems.append(f"{name}: verdict {verdict!r} is none of {', '.join(VERDICTS)}")
        elif name not in shown:
            problems.append(f"{name}: stands in the ledger but no executed check tests it")
        elif verdict_of(shown[name]) != verdict:
            found = ", ".join(sorted(shown[name]))
            problems.append(f"{name}: the ledger says {verdict}, the executed checks show {found}")
    return problems


def _plain(name: str, value: Any) -> float | str | None:
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "is_Boolean") or hasattr(value, "free_symbols"):  # a sympy expression, kept exactly
        return str(value)
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name}: found {value!r}, allowed: a finite number or a text")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _numbers(record: dict[str, Any]) -> list[str]:
    found = []
    for name, word in (("measured", "measured"), ("bound", "against"), ("tolerance", "tolerance")):
        value = record[name]
        if value is not None:
            found.append(f"{word} {value if isinstance(value, str | int) else format(value, '.4g')}")
    return found


def _sentence(record: dict[str, Any]) -> str:
    tail = ", ".join(t for t in (record["note"], *_numbers(record)) if t)
    return f"{record['claim']} {SHOWS[record['shows']]}" + (f" ({tail})" if tail else "")
