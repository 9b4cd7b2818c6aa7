"""The recordings of Debian's package asterisk-core-sounds-en-wav, with what is said in them by asterisk-core-sounds-en."""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from speech import HOP, read_wav, tokens_of

#: Below this share of the loudest frame a recording has not begun, or is over.
SILENCE = 0.02


@dataclass
class Recording:
    name: str
    text: str
    samples: np.ndarray

    @property
    def tokens(self):
        return tokens_of(self.text)


def texts(folder):
    """What is said in each recording, by name: lines `NAME: TEXT`."""
    found = {}
    [file] = Path(folder).rglob("core-sounds-en.txt.gz")
    for line in gzip.decompress(file.read_bytes()).decode("utf-8").splitlines():
        if match := re.match(r"([\w/-]+): *(\S.*)", line):
            found[match[1]] = match[2].strip()
    return found


def trimmed(samples):
    """Without the silence at both ends, but for two frames."""
    loudness = np.sqrt((samples[: len(samples) // HOP * HOP].reshape(-1, HOP) ** 2).mean(1))
    [heard] = np.nonzero(loudness > SILENCE * loudness.max())
    return samples[max(0, heard[0] - 2) * HOP : (heard[-1] + 3) * HOP]


def recordings(folder):
    """Those with a text of letters, of at least 16 frames."""
    said = texts(folder)
    [root] = {file.parent for file in Path(folder).rglob("vm-goodbye.wav")}
    spoken = []
    for name in sorted(said):
        file, text = root / f"{name}.wav", said[name]
        if file.exists() and re.search("[a-z]", text.lower()) and not re.search(r"[\[\]()<>0-9]", text):
            spoken.append(Recording(name, text, trimmed(read_wav(file))))
    return [one for one in spoken if len(one.samples) >= 16 * HOP]
