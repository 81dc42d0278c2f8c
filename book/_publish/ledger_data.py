"""The ledger's data: the claims as written, the checks as executed, and what is wrong between them."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from amem_core.claims import MIME, VERDICTS, reconcile, slug

REQUIRED = ("title", "source", "statement", "hypotheses", "verdict", "faithful", "uses", "chapter")
TEXTS = ("title", "source", "statement", "hypotheses", "verdict", "corrected", "chapter")


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys in silence; a ledger must not lose a claim so."""

    def construct_mapping(self, node, deep=False):
        """Build a mapping, refusing a repeated key."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for (key_node, _), key in zip(node.value, keys, strict=True):
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice", key_node.start_mark
                )
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Check:
    """One executed check: the notebook it ran in and what it left behind."""

    notebook: str
    evidence: dict


@dataclass
class Ledger:
    """All that the pages show, and every problem found on the way."""

    claims: dict[str, dict] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def checks_of(self, claim_id: str) -> list[Check]:
        """Every executed check of one claim."""
        return [check for check in self.checks if check.evidence.get("claim") == claim_id]

    def chapters(self) -> list[str]:
        """Chapter names in the order of their numbers."""
        return sorted({claim["chapter"] for claim in self.claims.values()})


def load(claims_file: Path, executed: Path) -> Ledger:
    """Read claims and executed notebooks; every disagreement becomes a problem."""
    ledger = Ledger()
    written = _read_claims(claims_file, ledger.problems)
    for claim_id, entry in written.items():
        faults = _faults(claim_id, entry, written)
        ledger.problems += [f"claim {claim_id}: {fault}" for fault in faults]
        if isinstance(entry, dict):
            ledger.claims[claim_id] = _completed(entry)
    _check_anchors(ledger)
    for path in notebooks(executed):
        _read_notebook(path, ledger)
    if not notebooks(executed):
        ledger.problems.append(f"no executed notebook in {executed.name}/: run the notebooks first")
    for claim_id, claim in ledger.claims.items():
        if ledger.titles and claim["chapter"] not in (*ledger.titles, "(missing)"):
            ledger.problems.append(
                f"claim {claim_id}: its chapter {claim['chapter']!r} is not among the executed notebooks"
            )
    if ledger.titles and ledger.claims:  # otherwise one fault would be told again for every claim or check
        ledger.problems += reconcile(ledger.claims, [check.evidence for check in ledger.checks])
    return ledger


def notebooks(executed: Path) -> list[Path]:
    """The executed chapters, by name."""
    return sorted(p for p in executed.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def fingerprint(paths: list[Path]) -> str:
    """Hash of the files' contents; a new, changed or missing file changes it."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest() if path.exists() else b"missing")
    return digest.hexdigest()


def _read_claims(path: Path, problems: list[str]) -> dict:
    try:
        written = yaml.load(path.read_text(encoding="utf-8"), UniqueKeyLoader)
    except FileNotFoundError:
        problems.append(f"the claims file {path.name} is missing")
        return {}
    except yaml.YAMLError as error:
        problems.append(f"{path.name} is not valid YAML: {error}")
        return {}
    if not isinstance(written, dict):
        problems.append(f"{path.name} must map claim ids to entries, not be {type(written).__name__}")
        return {}
    return {str(key): value for key, value in written.items()}


def _faults(claim_id: str, entry: object, claims: dict) -> list[str]:
    """What an entry of claims.yml lacks or says wrongly."""
    if not isinstance(entry, dict):
        return [f"the entry must be a mapping, not {type(entry).__name__}"]
    faults = [f"the field '{name}' is missing" for name in REQUIRED if entry.get(name) is None]
    unknown = sorted(set(entry) - {*REQUIRED, "corrected"})
    faults += [f"the field '{name}' is not known" for name in unknown]
    for name in TEXTS:
        value = entry.get(name)
        if value is not None and not (isinstance(value, str) and value.strip()):
            faults.append(f"'{name}' must be a text, not {value!r}")
    verdict = entry.get("verdict")
    if isinstance(verdict, str) and verdict not in VERDICTS:
        faults.append(f"the verdict {verdict!r} is unknown; allowed: {', '.join(VERDICTS)}")
    if verdict == "corrected" and not entry.get("corrected"):
        faults.append("the verdict is 'corrected', so a statement 'corrected' is needed")
    if verdict == "holds" and entry.get("corrected"):
        faults.append("the verdict is 'holds', so there is nothing 'corrected' to state")
    faithful = entry.get("faithful")
    if faithful is not None and faithful is not True and not (isinstance(faithful, str) and faithful.strip()):
        faults.append(f"'faithful' must be yes or a sentence, not {faithful!r}")
    return faults + _uses_faults(claim_id, entry.get("uses"), claims)


def _uses_faults(claim_id: str, uses: object, claims: dict) -> list[str]:
    if uses is None:
        return []
    if not isinstance(uses, list):
        return [f"'uses' must be a list of claim ids, not {uses!r}"]
    faults = [f"it uses {name!r}, which is no claim" for name in uses if str(name) not in claims]
    if claim_id in map(str, uses):
        faults.append("it uses itself")
    return faults


def _completed(entry: dict) -> dict:
    """The entry with every field present, so that a faulty one is still shown beside its warning."""
    blank = dict.fromkeys(REQUIRED, "(missing)")
    given = {name: value for name, value in entry.items() if value is not None}
    full = {**blank, **given}
    full["uses"] = [str(name) for name in full["uses"]] if isinstance(full["uses"], list) else []
    return full


def _check_anchors(ledger: Ledger) -> None:
    owner: dict[str, str] = {}
    for claim_id in ledger.claims:
        first = owner.setdefault(slug(claim_id), claim_id)
        if first != claim_id:
            ledger.problems.append(f"claim {claim_id}: its anchor #{slug(first)} is that of {first}")


def _read_notebook(path: Path, ledger: Ledger) -> None:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        ledger.problems.append(f"executed notebook {path.name} cannot be read: {error!r}")
        return
    ledger.titles[path.stem] = _title(cells) or path.stem
    for cell in cells:
        for output in cell.get("outputs", []):
            evidence = output.get("data", {}).get(MIME)
            if evidence is not None:
                evidence = json.loads(evidence) if isinstance(evidence, str) else evidence
                ledger.checks.append(Check(path.stem, evidence))


def _title(cells: list[dict]) -> str:
    for cell in cells:
        if cell.get("cell_type") == "markdown":
            for line in "".join(cell["source"]).splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return ""
