"""Markdown: tables, and the parts of a page that are made here."""

from bespoke import ROOT


def table(heading, rows):
    """Lines of a table; cells are text."""
    return [line(heading), line(["---"] * len(heading)), *map(line, rows)]


def line(cells):
    return "| " + " | ".join(cells) + " |"


def replace(page, part, lines):
    """Puts lines between `<!-- results: PART -->` and `<!-- end -->` of a page."""
    path = ROOT / page
    text = path.read_text()
    begin, end = f"<!-- results: {part} -->\n", "<!-- end -->"
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{page} has no part {begin.strip()}")
    path.write_text(before + begin + "\n" + "\n".join(lines) + "\n\n" + rest[rest.index(end) :])
