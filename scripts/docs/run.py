#!/usr/bin/env python3
"""Runs what a page says to type: its blocks of `sh`, one after another, in one shell at the top of a clone.

    scripts/docs/run.py docs/tutorial-engine.md
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main():
    page = Path(sys.argv[1])
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if not blocks:
        sys.exit(f"{page} has no block of `sh`")
    print(f"== {page}: {len(blocks)} blocks", flush=True)
    sys.exit(subprocess.run(["bash", "-euxo", "pipefail", "-c", "".join(blocks)], cwd=ROOT).returncode)


if __name__ == "__main__":
    main()
