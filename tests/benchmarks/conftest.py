"""The table of ratios at the end of a benchmark run."""

import pytest

ROWS: list[tuple[str, str, str, str, str]] = []


@pytest.fixture
def row():
    """Add a row to the table: what was compared, the two measurements, their ratio, and what is asked of it."""
    return lambda *cells: ROWS.append(cells)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    header = ("comparison", "reference", "amem_core", "ratio", "target")
    widths = [max(len(line[k]) for line in [header, *ROWS]) for k in range(5)]
    terminalreporter.section("ratios")
    for line in [header, *ROWS]:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
