"""Draws digits from a server and saves a picture of them: a row of ten classes for each guidance scale.

    python draw_digits.py --url 127.0.0.1:8000 --model digits --out digits.png
"""

import argparse
import struct
import zlib

import numpy as np
import tritonclient.http as http

SCALES = (1.0, 2.0, 4.0)


def draw(client, model, seed):
    """[scales, classes, 8, 8] in [-1, 1], and what the server said of the last request."""
    rows = []
    for scale in SCALES:
        columns = {
            "SEED": np.arange(seed, seed + 10, dtype=np.int64),
            "CLASS": np.arange(10, dtype=np.int64),
            "GUIDANCE_SCALE": np.full(10, scale, np.float32),
        }
        inputs = []
        for name, values in columns.items():
            tensor = http.InferInput(name, [10, 1], "FP32" if values.dtype == np.float32 else "INT64")
            tensor.set_data_from_numpy(values.reshape(10, 1))
            inputs.append(tensor)
        result = client.infer(model, inputs)
        rows.append(result.as_numpy("SAMPLE")[:, 0])
    return np.stack(rows), result.get_response()["parameters"]


def save(samples, path, zoom=8, gap=1):
    """A grey PNG."""
    tiles = np.pad(samples, ((0, 0), (0, 0), (gap, gap), (gap, gap)), constant_values=-1)
    grid = tiles.transpose(0, 2, 1, 3).reshape(tiles.shape[0] * tiles.shape[2], -1).repeat(zoom, 0).repeat(zoom, 1)
    pixels = ((grid.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="digits.png")
    arguments = parser.parse_args()
    samples, said = draw(http.InferenceServerClient(arguments.url, network_timeout=120), arguments.model, arguments.seed)
    save(samples, arguments.out)
    print(f"{samples.shape[0] * samples.shape[1]} digits by {said['solver']}, {said['nfe']} evaluations, written to {arguments.out}")


if __name__ == "__main__":
    main()
