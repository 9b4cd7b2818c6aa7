"""A theta beside stable-diffusion.cpp's own samplers, compiled from the headers of its source package.

    python test_stable_diffusion_cpp.py COUNT      prints the table
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from compiled import ROOT, compiled

HERE = Path(__file__).resolve().parent
PROGRAM = Path(os.environ.get("BESPOKE_PROGRAM", ROOT / "target/release/bespoke"))
SOURCE = ROOT / ".venv-hosts/stable-diffusion.cpp"
CARD = ROOT / "models/digits-fm-ot-onnx.json"
TRAINING = ["--pool", "375", "--validation", "125", "--budget", "100000"]


def table(folder, count, training=()):
    """What compare.cpp prints with a theta of eight evaluations."""
    includes = [HERE, HERE.parent / "denoise_callback"]
    theirs = [SOURCE / "src", SOURCE / "include", SOURCE / "ggml/include"]
    # Of ggml nothing is called: what would call it is left out.
    options = ["-O1", "-DGGML_MAX_NAME=128", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    options += [f"-I{path}" for path in includes] + [part for path in theirs for part in ("-isystem", path)]
    program = compiled(folder / "compare", *options, HERE / "compare.cpp")
    train = ["train", "--quiet", "--model", CARD, "--family", "rk2", "--nfe", 8, *training, "--out", folder / "theta.json"]
    subprocess.run(list(map(str, [PROGRAM, *train])), check=True, stdout=subprocess.DEVNULL)
    command = [program, CARD, folder / "theta.json", str(count)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_a_theta_is_closer_than_their_samplers(tmp_path):
    small = ["--pool", "60", "--batch", "15", "--validation", "30", "--iterations", "10"]
    lines = table(tmp_path, 20, small).splitlines()[2:]
    rows = {name: (int(nfe), float(rmse)) for name, nfe, rmse in (line.strip("| ").split(" | ") for line in lines)}
    assert rows["theta"][0] == rows["euler"][0] == 8 and rows["heun"][0] == 9
    assert all(rows["theta"][1] < 0.7 * rmse for name, (_, rmse) in rows.items() if name != "theta"), rows


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        print(table(Path(made), int(sys.argv[1]), TRAINING), end="")
