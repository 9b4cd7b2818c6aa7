#!/usr/bin/env python3
"""Writes the conditions of models/digits-text, models/photos-wide and models/emoji: files for --conditions.

    python3 scripts/make-conditions.py                                         the sets in models/conditions
    python3 scripts/make-conditions.py --text "a seven" "three" --out own.safetensors
    python3 scripts/make-conditions.py --model emoji --text "a rose" --out own.safetensors

The sets are of 256 texts of four lengths, 64 of each, and 256 others of four other lengths; of 192 pieces of
photographs of three widths, and 192 of three other widths; of half the names of emoji, and of the other half. Texts of one's own are
padded to the longest with tokens of zeros, which say nothing. Needs torch and safetensors.
"""

import argparse
import itertools
import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent
CHARACTERS = " abcdefghijklmnopqrstuvwxyz0123456789"
#: Characters of the texts, and widths of the pieces: those to train a solver over, and the others.
LENGTHS = {"digits-text": (9, 13, 17, 22), "digits-text-others": (11, 15, 19, 25)}
WIDTHS = {"photos-wide": (8, 16, 24), "photos-wide-others": (12, 20, 32)}
ROWS = 64
PHOTOS = 2


def all_texts():
    """Every text that asks for a digit, by length."""
    grammar = json.loads((ROOT / "data" / "digits-texts.json").read_text(encoding="utf-8"))
    digits = [*grammar["words"], *map(str, range(10))]
    parts = itertools.product(grammar["openings"], grammar["adjectives"], grammar["nouns"], digits)
    by_length: dict[int, list[str]] = {}
    for opening, adjective, noun, digit in parts:
        text = opening + adjective + noun.replace("{}", digit)
        by_length.setdefault(len(text), []).append(text)
    return by_length


def encoded(texts, model="digits-text"):
    """The tokens of texts as a model takes them, float32 [texts, longest, numbers of a token]."""
    encoder = torch.jit.load(ROOT / "models" / f"{model}-encoder.pt", map_location="cpu")
    length = max(map(len, texts))
    for text in texts:
        if not text or (unknown := set(text) - set(CHARACTERS)):
            raise SystemExit(f"{text!r}: expected a to z, 0 to 9 and blanks" + (f", not {sorted(unknown)}" if text else ""))
    rows = [[1 + CHARACTERS.index(character) for character in text] + [0] * (length - len(text)) for text in texts]
    with torch.no_grad():
        return encoder(torch.tensor(rows)).contiguous()


def write_names(folder):
    """Names of emoji, one length for all."""
    names = sorted(set(json.loads((ROOT / "models" / "emoji-texts.json").read_text(encoding="utf-8"))))
    drawn = random.Random(0).sample(names, len(names))
    half = len(names) // 2
    for name, texts in (("emoji-names", drawn[:half]), ("emoji-names-others", drawn[half : 2 * half])):
        notes = {"texts": json.dumps(texts)}
        save_file({"text": encoded(texts, "emoji")}, folder / f"{name}.safetensors", metadata=notes)


def write_sets(folder):
    folder.mkdir(exist_ok=True)
    by_length = all_texts()
    for name, lengths in LENGTHS.items():
        for length in lengths:
            texts = random.Random(length).sample(sorted(by_length[length]), ROWS)
            notes = {"texts": json.dumps(texts)}
            save_file({"text": encoded(texts)}, folder / f"{name}-{length}.safetensors", metadata=notes)
    for name, widths in WIDTHS.items():
        for width in widths:
            photo = torch.arange(ROWS) % PHOTOS
            save_file({"photo": photo}, folder / f"{name}-{width}.safetensors", metadata={"width": str(width)})
    write_names(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", metavar="TEXT", help="texts of one's own, in place of the sets")
    parser.add_argument("--model", choices=["digits-text", "emoji"], default="digits-text", help="that reads them")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where they go")
    arguments = parser.parse_args()
    if (arguments.text is None) != (arguments.out is None):
        parser.error("--text and --out go together")
    if arguments.text is None:
        write_sets(ROOT / "models" / "conditions")
    else:
        save_file({"text": encoded(arguments.text, arguments.model)}, arguments.out)


if __name__ == "__main__":
    main()
