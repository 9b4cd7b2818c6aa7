"""Builds the program, and runs it on the voice and the ladder of this folder.

    python tts.py                         the table of docs/hosts/text-to-speech.md
    python tts.py say "thank you" out.wav
"""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from compiled import LIBRARY, ROOT, compiled

HERE = Path(__file__).resolve().parent
[ONNXRUNTIME] = ROOT.glob(".venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*")
VOICE, LADDER = HERE / "voice", HERE / "voice/decoder-ladder.json"

def build(folder):
    """The program, in `folder`."""
    return compiled(Path(folder) / "tts", "-I", HERE / "api", HERE / "tts.cpp", libraries=(LIBRARY, ONNXRUNTIME))

def run(program, *arguments, check=True):
    """What the program prints."""
    ran = subprocess.run([program, *map(str, arguments)], check=False, capture_output=True, text=True)
    if check and ran.returncode:
        sys.exit(ran.stderr.strip())
    return ran

def prompt():
    """A recording of the voice, and what is said in it."""
    name, text = (VOICE / "prompts.txt").read_text(encoding="utf-8").splitlines()[0].split("\t")
    return VOICE / name, text

def main():
    if sys.argv[1:] and (sys.argv[1] != "say" or len(sys.argv) != 4):
        sys.exit(__doc__.strip())
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        if sys.argv[1:]:
            text, out = sys.argv[2:]
            print(run(program, "say", VOICE, f"{LADDER}@5", *prompt(), text, out).stdout, end="")
        else:
            print(run(program, "compare", VOICE, LADDER, HERE / "texts.txt", 3, 4, 5, 8).stdout, end="")

if __name__ == "__main__":
    main()
