"""Calls with bad arguments, made in a process without the shape checker, which would speak first.

A reader's notebook does not have the checker; there, too, the answer must be a ``ValueError``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: run after the caller's own lines: evaluates the calls that come in, and writes what each of them raised
ASK = """
import json, sys

answers = []
for call in json.load(sys.stdin):
    try:
        eval(call)
        answers.append("nothing was raised")
    except Exception as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps(answers))
"""


def answers_to(calls: list[str], preparation: str) -> dict[str, str]:
    """What each call raises, as "type: words", after the lines of the preparation."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", preparation + ASK],
        input=json.dumps(calls), capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return dict(zip(calls, json.loads(run.stdout), strict=True))


def is_refusal(answer: str, argument: str) -> bool:
    """A ``ValueError`` that names the argument, the value found and what is allowed."""
    return answer.startswith(f"ValueError: {argument}: found ") and ", allowed: " in answer
