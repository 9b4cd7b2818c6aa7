"""A theta beside stable-diffusion.cpp's own samplers, compiled from the headers of its source package.

    python test_stable_diffusion_cpp.py COUNT      prints the table
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PROGRAM = Path(os.environ.get("BESPOKE_PROGRAM", ROOT / "target/release/bespoke"))
LIBRARY = Path(os.environ.get("BESPOKE_LIBRARY", ROOT / "target/release/libbespoke.so")).resolve()
SOURCE = ROOT / ".venv-hosts/stable-diffusion.cpp"
CARD = ROOT / "models/digits-fm-ot-onnx.json"
TRAINING = ["--pool", "375", "--validation", "125", "--budget", "100000"]


def table(folder, count, training=()):
    """What compare.cpp prints with a theta of eight evaluations."""
    includes = [HERE, HERE.parent / "denoise_callback", ROOT / "include"]
    theirs = [SOURCE / "src", SOURCE / "include", SOURCE / "ggml/include"]
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-DGGML_MAX_NAME=128"]
    # Of ggml nothing is called: what would call it is left out.
    command += ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    command += [f"-I{path}" for path in includes] + [part for path in theirs for part in ("-isystem", path)]
    command += [HERE / "compare.cpp", LIBRARY, "-o", folder / "compare"]
    subprocess.run(list(map(str, command)), check=True)
    train = ["train", "--quiet", "--model", CARD, "--family", "rk2", "--nfe", 8, *training, "--out", folder / "theta.json"]
    subprocess.run(list(map(str, [PROGRAM, *train])), check=True, stdout=subprocess.DEVNULL)
    # In a build tree the library does not stand under the name that it goes by: what is loaded already is found.
    environment = {**os.environ, "LD_PRELOAD": str(LIBRARY)}
    command = [folder / "compare", CARD, folder / "theta.json", str(count)]
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout


def test_a_theta_is_closer_than_their_samplers(tmp_path):
    small = ["--pool", "60", "--batch", "15", "--validation", "30", "--iterations", "10"]
    lines = table(tmp_path, 20, small).splitlines()[2:]
    rows = {name: (int(nfe), float(rmse)) for name, nfe, rmse in (line.strip("| ").split(" | ") for line in lines)}
    assert rows["theta"][0] == rows["euler"][0] == 8 and rows["heun"][0] == 9
    assert all(rows["theta"][1] < 0.7 * rmse for name, (_, rmse) in rows.items() if name != "theta"), rows


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        print(table(Path(made), int(sys.argv[1]), TRAINING), end="")
