"""The C header as a page of Markdown: each declaration with what its comment says.

    python3 scripts/docs/c_reference.py include/bespoke.h > c-reference.md
"""

import re
import sys
from pathlib import Path

#: A comment and what it is about: a constant, a struct, a type, or a function.
ITEM = re.compile(
    r"^/\*\*\n(?P<comment>.*?)^ \*/\n"
    r"(?P<code>\#define [^\n]*|typedef struct \w+ \{\n.*?^\} \w+;|[^{}]*?;)$",
    re.MULTILINE | re.DOTALL,
)
SECTIONS = ("Constants", "Objects", "Structs", "Types", "Functions")


def section_of(code):
    if code.startswith("#define"):
        return "Constants"
    if re.fullmatch(r"typedef struct \w+ \w+;", code):
        return "Objects"
    if code.startswith("typedef struct"):
        return "Structs"
    return "Types" if code.startswith("typedef") else "Functions"


def name_of(code):
    if code.startswith("#define"):
        return code.split()[1]
    if code.startswith("typedef"):
        return (re.search(r"\(\*(\w+)\)", code) or re.search(r"(\w+);$", code))[1]
    return re.search(r"(\w+)\(", code)[1]


def prose(comment, indent=" "):
    lines = (line.removeprefix(indent).removeprefix("*").removeprefix(" ") for line in comment.splitlines())
    return "\n".join(lines).replace("# Safety\n", "**Asked of the caller.** ").strip()


def item(match):
    code, text = match["code"], prose(match["comment"])
    members = re.findall(r"^    /\*\*\n(.*?)^     \*/\n    ([^\n]*;)$", code, re.MULTILINE | re.DOTALL)
    if members:
        code = re.sub(r"^    /\*\*\n.*?^     \*/\n", "", code, flags=re.MULTILINE | re.DOTALL)
        rows = (f"| `{member.rstrip(';')}` | {' '.join(prose(said, '     ').split())} |" for said, member in members)
        text = "\n".join([text, "", "| member | |", "|---|---|", *rows])
    return f"### {name_of(code)}\n\n```c\n{code}\n```\n\n{text}\n"


def page(header):
    items = {section: [] for section in SECTIONS}
    for match in ITEM.finditer(header):
        items[section_of(match["code"])].append(item(match))
    missing = set(re.findall(r"^[a-z_0-9 *]*?\b(bespoke_\w+)\(", header, re.MULTILINE)) - {
        text.split("\n", 1)[0].removeprefix("### ") for text in items["Functions"]
    }
    if missing:
        raise SystemExit(f"these functions have no comment: {sorted(missing)}")
    parts = ["# The C header\n", "What `bespoke.h` declares; [the C ABI](abi.md) says what is promised of it.\n"]
    for section in SECTIONS:
        parts += [f"## {section}\n", *items[section]]
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(Path(sys.argv[1]).read_text(encoding="utf-8")))
