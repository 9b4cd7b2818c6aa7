"""Trains the networks of voice/ on the recordings of Debian's package asterisk-core-sounds-en-wav, and writes them as ONNX.

    python train.py --data FOLDER --checkpoint speech.pt --out voice
    python train.py --data FOLDER --checkpoint speech.pt --out voice --steps 0      writes what was trained before

FOLDER is what the package unpacks to. One core: set OMP_NUM_THREADS=1.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from export import write
from network import Decoder, Encoder
from recordings import recordings
from speech import BANDS, HOP, Features
from torch import nn

BATCH = 12
#: Frames of a piece at most.
PIECE = 96
RATE, AVERAGE = 3e-3, 0.995
#: Steps until the rate would be 0.
COSINE = 3000
#: How often text and speech, or the text alone, are left out; and how much of a piece is to be filled in.
NOTHING, NO_TEXT, MISSING = 0.15, 0.05, (0.6, 1.0)


class Voice(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.encoder, self.decoder = Features(), Encoder(), Decoder()


def prepared(features, spoken):
    """(tokens [characters], features [frames, bands]) of each recording."""
    with torch.no_grad():
        raw = [features.bands(torch.from_numpy(one.samples[: len(one.samples) // HOP * HOP])[None])[0] for one in spoken]
        together = torch.cat(raw)
        features.mean.copy_(together.mean(0))
        features.deviation.copy_(together.std(0))
        return [(torch.from_numpy(one.tokens), (bands - features.mean) / features.deviation) for one, bands in zip(spoken, raw)]


def batch_of(pieces, generator, encoder):
    """Features and the text of each frame, of recordings that are about as long: pieces of one length."""
    first = int(generator.integers(0, len(pieces) - BATCH + 1))
    chosen = pieces[first : first + BATCH]
    length = min(PIECE, min(len(bands) for _, bands in chosen))
    starts = [int(generator.integers(0, len(bands) - length + 1)) for _, bands in chosen]
    speech = torch.stack([bands[start : start + length] for (_, bands), start in zip(chosen, starts)])
    tokens = nn.utils.rnn.pad_sequence([tokens for tokens, _ in chosen], batch_first=True)
    rate = torch.tensor([[len(tokens) / len(bands)] for tokens, bands in chosen])
    place = (torch.tensor(starts)[:, None] + torch.arange(length) + 0.5) * rate
    return speech, encoder.at(tokens, place)


def given_parts(speech, generator):
    """1 where a frame of the speech is given, [B, frames, 1]: all but one span of each piece."""
    given = torch.ones(*speech.shape[:2], 1)
    for row in given:
        missing = int(len(row) * generator.uniform(*MISSING))
        start = int(generator.integers(0, len(row) - missing + 1))
        row[start : start + missing] = 0
    return given


def loss_of(voice, pieces, generator):
    """Squared error of the velocity on one batch."""
    speech, text = batch_of(pieces, generator, voice.encoder)
    chance = torch.from_numpy(generator.random(BATCH)).float()[:, None, None]
    text = text * (chance >= NOTHING + NO_TEXT)
    condition = speech * given_parts(speech, generator) * ((chance < NO_TEXT) | (chance >= NOTHING + NO_TEXT))
    t = torch.from_numpy(generator.random(BATCH)).float()
    noise = torch.from_numpy(generator.standard_normal(speech.shape, np.float32))
    x = noise + t[:, None, None] * (speech - noise)
    return (voice.decoder(x, t, text, condition) - (speech - noise)).square().mean()


@torch.no_grad()
def validation(voice, pieces, rounds=20):
    """The same over pieces that were not trained on, always with the same noises."""
    generator = np.random.default_rng(1)
    return sum(loss_of(voice, pieces, generator).item() for _ in range(rounds)) / rounds


def train(voice, pieces, others, steps, checkpoint):
    """Adam with a cosine's rate; the running average of the weights is what remains."""
    average = torch.optim.swa_utils.AveragedModel(voice, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE))
    optimiser = torch.optim.AdamW(voice.parameters(), lr=RATE, weight_decay=1e-2, betas=(0.9, 0.98))
    generator, begun, running = np.random.default_rng(0), time.monotonic(), 0.0
    for step in range(steps):
        rate = RATE * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / COSINE))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of(voice, pieces, generator)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(voice.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(voice)
        running += (loss.item() - running) / min(step + 1, 200)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            held = validation(average.module, others)
            torch.save(average.module.state_dict(), checkpoint)
            print(f"{step + 1:6} loss {running:.4f} validation {held:.4f} {time.monotonic() - begun:6.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2400)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    voice, spoken = Voice(), recordings(arguments.data)
    pieces = prepared(voice.features, spoken)
    # One recording in twenty is held out.
    held = set(range(0, len(pieces), 20))
    by_length = lambda some: sorted(some, key=lambda piece: len(piece[1]))
    others = by_length([piece for i, piece in enumerate(pieces) if i in held])
    pieces = by_length([piece for i, piece in enumerate(pieces) if i not in held])
    frames = sum(len(bands) for _, bands in pieces)
    count = sum(parameter.numel() for parameter in voice.parameters())
    print(f"{len(pieces)} recordings, {frames} frames of {BANDS} bands; {len(others)} held out; {count} parameters", flush=True)
    if arguments.steps:
        train(voice, pieces, others, arguments.steps, arguments.checkpoint)
    voice.load_state_dict(torch.load(arguments.checkpoint))
    per_token = frames / sum(len(tokens) for tokens, _ in pieces)
    write(voice, per_token, spoken, arguments.out)


if __name__ == "__main__":
    main()
