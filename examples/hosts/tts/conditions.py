"""Writes what a solver is trained over: chunks of texts after prompts, a file for each number of frames.

    python conditions.py --texts training-texts.txt --out FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
from graphs import BANDS, Voice
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
#: Frames of a sample, and of them the share that is given.
FRAMES, GIVEN = (48, 72), (0.3, 0.6)
ROWS = 20


def chunk(voice, texts, frames, generator):
    """Text and speech of the frames: the end of a prompt, and then a piece of a text."""
    said, known = voice.prompts[generator.integers(len(voice.prompts))]
    given = min(len(known), round(frames * generator.uniform(*GIVEN)))
    missing = frames - given
    text = voice.text_condition(texts[generator.integers(len(texts))])
    while len(text) < missing:
        text = np.concatenate([text, voice.text_condition(texts[generator.integers(len(texts))])])
    first = generator.integers(len(text) - missing + 1)
    speech = np.concatenate([known[len(known) - given :], np.zeros((missing, BANDS), np.float32)])
    return np.concatenate([said[len(said) - given :], text[first : first + missing]]), speech


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", type=Path, default=HERE / "voice")
    parser.add_argument("--texts", type=Path, required=True, help="a text a line")
    parser.add_argument("--out", type=Path, required=True, help="folder of conditions-FRAMES.safetensors")
    arguments = parser.parse_args()
    voice, generator = Voice(arguments.voice), np.random.default_rng(0)
    texts = arguments.texts.read_text(encoding="utf-8").splitlines()
    if not texts:
        parser.error(f"{arguments.texts} has no text")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for frames in FRAMES:
        rows = [chunk(voice, texts, frames, generator) for _ in range(ROWS)]
        text, speech = (np.ascontiguousarray(np.stack(part), np.float32) for part in zip(*rows))
        save_file({"text_condition": text, "speech_condition": speech}, arguments.out / f"conditions-{frames}.safetensors")


if __name__ == "__main__":
    main()
