"""Starts a server with the models of this folder, and draws from it: inside the library, and through another model.

    python demo.py --out ../../demo/triton.png
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import tritonclient.http as http

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "bindings" / "triton" / "tests"))

from draw_digits import draw, save  # noqa: E402
from server import BUILD, Server  # noqa: E402

CARD = ("digits-fm-ot.json", "digits-fm-ot.pt")


def repository(folder, theta):
    """The models of this folder, with the files that lie elsewhere."""
    shutil.copytree(HERE / "models", folder, dirs_exist_ok=True)
    for model, files in {"digits": CARD, "digits-network": CARD, "digits-served": ()}.items():
        (folder / model / "1").mkdir(exist_ok=True)
        for file in files:
            shutil.copy(ROOT / "models" / file, folder / model / "1")
        if model != "digits-network":
            shutil.copy(theta, folder / model / "1" / "theta.json")
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--theta", default=ROOT / "demo" / "theta.json")
    parser.add_argument("--out", default="triton.png")
    arguments = parser.parse_args()
    os.environ.setdefault("BESPOKE_LIBRARY", str(BUILD / "prefix" / "lib" / "libbespoke.so"))
    with tempfile.TemporaryDirectory() as folder, Server(repository(Path(folder), arguments.theta)) as server:
        connection = http.InferenceServerClient(f"127.0.0.1:{server.ports['http']}", network_timeout=120)
        own, said = draw(connection, "digits", seed=0)
        served, _ = draw(connection, "digits-served", seed=0)
    save(own, arguments.out)
    print(f"30 digits by {said['solver']}, {said['nfe']} evaluations, written to {arguments.out}")
    difference = np.abs(own - served).max()
    print(f"through another model of the server: the same but for {difference:.1g}")
    sys.exit(0 if difference < 1e-5 else 1)


if __name__ == "__main__":
    main()
