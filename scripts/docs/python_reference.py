"""What the Python package exports, as a page of Markdown; read from its sources, nothing is imported.

    python scripts/docs/python_reference.py bindings/python/src > python-reference.md
"""

import re
import sys

from griffe2md import ConfigDict, render_package_docs

OPTIONS = ConfigDict(show_submodules=False, show_signature_annotations=True, docstring_style="google", heading_level=1)


def anchor(heading):
    """A heading's name in a link, as mdBook has it."""
    return re.sub(r"[^\w-]", "", heading.lower())


def linked(page):
    """The same with links that lead somewhere: what is not on the page has none."""
    headings = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}

    def link(found):
        to = anchor(found[2])
        return f"[{found[1]}](#{to})" if to in headings else found[1]

    return re.sub(r"\[([^\]\n]+)\]\(#([^)]+)\)", link, page)


def main():
    sys.path.insert(0, sys.argv[1])
    page = render_package_docs("bespoke_solver", OPTIONS)
    # Modules are where things lie, not what a user names.
    print(linked(re.sub(r"\*\*Modules:\*\*\n\n(- .*\n)+\n", "", page)))


if __name__ == "__main__":
    main()
