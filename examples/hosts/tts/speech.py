"""Speech as the networks take it: characters as tokens, and the features of a recording."""

import re
import wave

import numpy as np
import torch
from torch import nn

RATE = 8000
HOP = 128
WINDOW = 512
BINS = WINDOW // 2 + 1
BANDS = 80
#: Token i + 1 is character i; 0 is none of them.
ALPHABET = " abcdefghijklmnopqrstuvwxyz'.,?-"
#: Of bands without any energy.
FLOOR = 1e-5


def tokens_of(text):
    """int64 [characters]; what the alphabet does not have is left out."""
    return np.array([ALPHABET.index(character) + 1 for character in re.sub(r"\s+", " ", text.lower()) if character in ALPHABET])


def read_wav(path):
    """float32 [samples] in [-1, 1] of one channel at `RATE`."""
    with wave.open(str(path)) as file:
        found = (file.getnchannels(), file.getsampwidth(), file.getframerate())
        if found != (1, 2, RATE):
            raise ValueError(f"{path}: channels, bytes and rate are {found}, expected (1, 2, {RATE})")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def filters():
    """Triangles on the mel scale, float32 [bands, bins]."""
    mel = lambda frequency: 2595 * np.log10(1 + frequency / 700)
    edges = 700 * (10 ** (np.linspace(mel(0), mel(RATE / 2), BANDS + 2) / 2595) - 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(BINS) * RATE / WINDOW
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return torch.tensor(np.maximum(0, np.minimum(rising, falling)), dtype=torch.float32)


class Transform(nn.Module):
    """Short-time Fourier transforms as convolutions: frame i is about samples i `HOP` to (i + 1) `HOP`, and F frames are
    F `HOP` samples."""

    margin = (WINDOW - HOP) // 2

    def __init__(self):
        super().__init__()
        place = torch.arange(WINDOW)
        angle = torch.remainder(torch.arange(BINS)[:, None] * place, WINDOW) * (2 * torch.pi / WINDOW)
        window = torch.hann_window(WINDOW)
        # As it will be kept: in half precision.
        basis = (torch.cat([torch.cos(angle), -torch.sin(angle)]) * window).half().float()
        self.register_buffer("basis", basis[:, None])
        self.register_buffer("weight", (window * window)[None, None])

    def forward(self, samples):
        """[B, samples] to [B, 2 bins, frames]: real parts, then imaginary ones."""
        padded = nn.functional.pad(samples[:, None], (self.margin, self.margin))
        return nn.functional.conv1d(padded, self.basis, stride=HOP)

    def inverse(self, spectrum):
        """The samples whose transform is nearest, [B, samples]."""
        # A bin stands for itself and its mirror, but for the first and the last.
        once = torch.cat([torch.ones(1), torch.full((BINS - 2,), 2.0), torch.ones(1)]) / WINDOW
        weighted = spectrum * torch.cat([once, once])[:, None]
        wave = nn.functional.conv_transpose1d(weighted, self.basis, stride=HOP)
        weight = nn.functional.conv_transpose1d(torch.ones_like(spectrum[:, :1]), self.weight, stride=HOP)
        return (wave / weight.clamp(min=1e-3))[:, 0, self.margin : -self.margin]


class Features(nn.Module):
    """Samples [B, samples] to features [B, frames, bands]: logarithms of mel bands, each of mean 0 and deviation 1 over the
    recordings that were trained on."""

    def __init__(self):
        super().__init__()
        self.transform = Transform()
        self.register_buffer("filters", filters())
        self.register_buffer("mean", torch.zeros(BANDS))
        self.register_buffer("deviation", torch.ones(BANDS))

    def bands(self, samples):
        spectrum = self.transform(samples)
        magnitude = torch.sqrt(spectrum[:, :BINS] ** 2 + spectrum[:, BINS:] ** 2 + 1e-12)
        return torch.log(torch.matmul(self.filters, magnitude) + FLOOR).transpose(1, 2)

    def forward(self, samples):
        return (self.bands(samples) - self.mean) / self.deviation


class Vocoder(nn.Module):
    """Features [B, frames, bands] to samples [B, frames `HOP`], by Griffin and Lim's method with momentum."""

    iterations, momentum = 16, 0.9

    def __init__(self, features):
        super().__init__()
        self.transform = features.transform
        self.register_buffer("inverse", torch.linalg.pinv(features.filters))
        self.register_buffer("mean", features.mean)
        self.register_buffer("deviation", features.deviation)

    def forward(self, features):
        bands = torch.exp(features * self.deviation + self.mean).transpose(1, 2)
        magnitude = torch.matmul(self.inverse, bands).clamp(min=0)
        # Each bin begins as a steady tone of its own frequency: a quarter of a turn a bin and frame.
        frame = torch.cumsum(torch.ones_like(magnitude[:1, :1]), 2)
        angle = torch.remainder(torch.arange(BINS)[:, None] * frame * (HOP / WINDOW), 1) * (2 * torch.pi)
        phase, before = torch.cat([torch.cos(angle), torch.sin(angle)], 1), None
        for _ in range(self.iterations):
            found = self.transform(self.transform.inverse(magnitude.repeat(1, 2, 1) * phase))
            ahead = found if before is None else found + self.momentum * (found - before)
            length = torch.sqrt(ahead[:, :BINS] ** 2 + ahead[:, BINS:] ** 2 + 1e-12)
            phase, before = ahead / length.repeat(1, 2, 1), found
        return self.transform.inverse(magnitude.repeat(1, 2, 1) * phase)
