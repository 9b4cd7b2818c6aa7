"""A small flow of speech: an encoder of text, and a decoder that fills in what is to be said, both of any length."""

import math

import torch
from speech import ALPHABET, BANDS
from torch import nn

TEXT = 48
WIDTH = 96
HEADS = 4
#: Of each block: the dilation of its convolution, and whether it has attention.
BLOCKS = [(1, False), (2, True), (4, False), (1, True), (2, False)]


class Convolved(nn.Module):
    """x + a convolution over time, of [B, length, width]; where `there` is 0 there is nothing, as beyond both ends."""

    def __init__(self, width, kernel=5):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2)

    def forward(self, x, there=None):
        seen = self.norm(x) if there is None else self.norm(x) * there
        return x + nn.functional.gelu(self.convolution(seen.transpose(1, 2)).transpose(1, 2))


class Encoder(nn.Module):
    """Tokens int64 [B, characters], zeros at their end for none, and a number of frames, int64 [1], to the text of each
    frame, [B, frames, `TEXT`]: every character takes as many."""

    def __init__(self, width=64):
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET) + 1, width)
        self.characters = nn.ModuleList(Convolved(width) for _ in range(3))
        self.inside = nn.Linear(1, width)
        self.frames = nn.Sequential(Convolved(width), nn.LayerNorm(width), nn.Linear(width, TEXT))

    def at(self, tokens, place):
        """The text at places among the characters, [B, frames]: 1.5 is the middle of the second."""
        there = (tokens > 0).float()[:, :, None]
        x = self.embedding(tokens)
        for layer in self.characters:
            x = layer(x, there)
        index = torch.minimum(place.floor().long(), (tokens > 0).sum(1, keepdim=True) - 1)
        spread = torch.gather(x, 1, index[:, :, None].expand(-1, -1, x.shape[2]))
        return self.frames(spread + self.inside((place - index)[:, :, None]))

    def forward(self, tokens, frames):
        count = (tokens > 0).float().sum(1, keepdim=True)
        return self.at(tokens, (torch.arange(frames[0]).float() + 0.5) * (count / frames.float()))


class Attention(nn.Module):
    """Of every frame with all, [B, length, width]."""

    def __init__(self, width):
        super().__init__()
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        query, key, value = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in self.mixed(x).chunk(3, 2))
        weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(WIDTH / HEADS), 3)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Convolution, attention and two layers for each frame, each of them scaled and shifted by the time."""

    def __init__(self, dilation, attends):
        super().__init__()
        self.near = nn.Conv1d(WIDTH, WIDTH, 7, padding=3 * dilation, dilation=dilation, groups=WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.attention = Attention(WIDTH) if attends else None
        self.each = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.parts = 3 if attends else 2
        self.table = nn.Parameter(torch.zeros(self.parts, 3, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)

    def forward(self, x, time):
        """`time` is [B, 3, width]: shift, scale and how much of the result."""
        local = lambda y: self.mix(self.near(y.transpose(1, 2)).transpose(1, 2))
        for k, part in enumerate([local, *([self.attention] if self.attention is not None else []), self.each]):
            shift, scale, gate = (time + self.table[k]).chunk(3, 1)
            x = x + (1 + gate) * part(self.norm(x) * (1 + scale) + shift)
        return x


class Decoder(nn.Module):
    """The velocity at x [B, frames, bands] and t [B], from noise at 0 to speech at 1, on the text of each frame
    [B, frames, text] and the speech of those that are given [B, frames, bands]; zeros say nothing."""

    def __init__(self):
        super().__init__()
        self.inward = nn.Linear(2 * BANDS + TEXT, WIDTH)
        self.time = nn.Sequential(nn.Linear(64, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 3 * WIDTH))
        self.blocks = nn.ModuleList(Block(*block) for block in BLOCKS)
        self.norm, self.outward = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, BANDS)

    def forward(self, x, t, text_condition, speech_condition):
        frequencies = torch.exp(torch.arange(32).float() * (math.log(1000) / 31))
        angle = t[:, None] * frequencies
        time = self.time(torch.cat([torch.cos(angle), torch.sin(angle)], 1)).unflatten(1, (3, WIDTH))
        h = self.inward(torch.cat([x, text_condition, speech_condition], 2))
        for block in self.blocks:
            h = block(h, time)
        return self.outward(self.norm(h))


class Guided(nn.Module):
    """The decoder with guidance inside, of scale [B]: u = u_null + scale (u - u_null), as ZipVoice's is exported."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, x, t, text_condition, speech_condition, guidance_scale):
        twice = lambda given: torch.cat([torch.zeros_like(given), given])
        both = self.decoder(torch.cat([x, x]), torch.cat([t, t]), twice(text_condition), twice(speech_condition))
        null, given = both[: x.shape[0]], both[x.shape[0] :]
        return null + guidance_scale[:, None, None] * (given - null)
