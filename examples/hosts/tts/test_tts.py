"""The program on ONNX Runtime's C API: its own loop, a theta in its place, and what the command line makes of the same graph."""

import os
import re
import shutil
import subprocess
import wave

import numpy as np
import pytest
from graphs import BANDS, Voice
from safetensors.numpy import save_file
from tts import HERE, LADDER, ROOT, VOICE, build, prompt, run

BESPOKE = os.environ.get("BESPOKE_PROGRAM", ROOT / "target/release/bespoke")
TEXT = "you have two new messages in your mailbox, please wait"


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    return build(tmp_path_factory.mktemp("tts"))


@pytest.fixture(scope="session")
def rows(program, tmp_path_factory):
    """rmse by (evaluations, solver), of three texts."""
    texts = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = (HERE / "texts.txt").read_text(encoding="utf-8").splitlines()
    texts.write_text("\n".join(lines[:3]), encoding="utf-8")
    said = run(program, "compare", VOICE, LADDER, texts, 3, 4, 5, 8).stdout.splitlines()
    cells = [line.strip("| ").split(" | ") for line in said if line.startswith("| ") and line[2].isdigit()]
    return {(int(nfe), solver): float(error) for nfe, solver, error, _ in cells}


@pytest.mark.parametrize("nfe", [3, 4, 5, 8])
def test_a_theta_is_closer_than_all_else(rows, nfe):
    errors = {solver: error for (evaluations, solver), error in rows.items() if evaluations == nfe}
    assert {"euler", "zipvoice", "ab2", "dpm++2m", "theta"} <= set(errors)
    assert all(errors["theta"] < error for solver, error in errors.items() if solver != "theta"), errors
    assert errors["theta"] < 0.75 * min(errors["euler"], errors["zipvoice"]), errors


def test_speech_comes_in_chunks_and_is_all_there(program, tmp_path):
    out = tmp_path / "said.wav"
    lines = run(program, "say", VOICE, f"{LADDER}@4", *prompt(), TEXT, out).stdout.splitlines()
    heard, waited = zip(*((float(line.split()[0]), float(line.split()[-2])) for line in lines))
    assert len(lines) > 3 and sorted(heard) == list(heard) and sorted(waited) == list(waited)
    voice = Voice(VOICE)
    with wave.open(str(out)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, voice.rate)
        assert file.getnframes() == len(voice.text_condition(TEXT)) * voice.hop
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert 0.01 < np.sqrt((samples**2).mean()) < 0.5


def test_the_command_line_draws_the_same_from_the_same_noise(program, tmp_path):
    """`say` of one chunk against `bespoke sample` of the same card, vocoded by the same graph."""
    voice, text, chunk, context, blended = Voice(VOICE), "thank you", 64, 40, 8
    said, known = voice.prompts[0]
    spoken = voice.text_condition(text)
    assert len(spoken) < chunk
    condition = np.concatenate([said[-context:], spoken])
    speech = np.zeros((len(condition), BANDS), np.float32)
    speech[:context] = known[-context:]
    save_file({"text_condition": condition[None], "speech_condition": speech[None]}, tmp_path / "one.safetensors")
    command = ["sample", "--model", VOICE / "decoder.json", "--solver", f"{LADDER}@5", "--conditions", tmp_path / "one.safetensors"]
    command += ["--guidance-scale", "2", "--seed", "7", "--count", "1", "--out", tmp_path / "x.npy"]
    subprocess.run(list(map(str, [BESPOKE, *command])), check=True, capture_output=True)
    found = np.load(tmp_path / "x.npy").reshape(-1, BANDS)
    features = np.concatenate([known[-blended:], found[context:]])
    expected = voice.samples(features)[blended * voice.hop :]
    run(program, "say", VOICE, f"{LADDER}@5", *prompt(), text, tmp_path / "said.wav")
    with wave.open(str(tmp_path / "said.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    assert len(samples) == len(expected)
    assert np.sqrt(np.square(samples - expected).mean()) < 0.02 * np.sqrt(np.square(expected).mean())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({1: "absent"}, "absent/encoder.onnx"),
        ({2: "euler@0"}, "euler@0: evaluations are 1 to 1000"),
        ({2: "euler@five"}, "euler@five: evaluations are 1 to 1000"),
        ({2: "absent@5"}, "absent"),
        ({3: __file__}, "is no WAV file"),
        ({3: VOICE}, "voice cannot be read"),
        ({5: "123"}, 'nothing in "123" can be said'),
        ({6: "/absent/out.wav"}, "/absent/out.wav cannot be written"),
    ],
)
def test_what_goes_wrong_is_said(program, tmp_path, change, said):
    arguments = ["say", VOICE, "euler@2", *prompt(), "thank you", tmp_path / "said.wav"]
    for place, value in change.items():
        arguments[place] = value
    failed = run(program, *arguments, check=False)
    assert failed.returncode == 1 and said in failed.stderr


@pytest.mark.parametrize(
    ("graph", "by", "said"),
    [
        ("encoder.onnx", "velocity.onnx", "encoder.onnx: its metadata lack alphabet"),
        ("decoder.onnx", "velocity.onnx", "decoder.onnx: Invalid input name: guidance_scale"),
        ("vocoder.onnx", "prompts.txt", "vocoder.onnx: Load model from .* failed"),
    ],
)
def test_the_wrong_graph_is_named(program, tmp_path, graph, by, said):
    voice = shutil.copytree(VOICE, tmp_path / "voice")
    shutil.copy(VOICE / by, voice / graph)
    failed = run(program, "say", voice, "euler@2", *prompt(), "thank you", tmp_path / "said.wav", check=False)
    assert failed.returncode == 1 and re.search(said, failed.stderr), failed.stderr


@pytest.mark.parametrize(
    ("texts", "nfe", "said"),
    [
        ("", "5", "texts.txt has no text"),
        ("hello", "5.5", "5.5: evaluations are 1 to 1000"),
        ("hello\n" + 1000 * "a", "5", "texts.txt: text 2 takes "),
    ],
)
def test_a_comparison_of_nothing_is_refused(program, tmp_path, texts, nfe, said):
    (tmp_path / "texts.txt").write_text(texts, encoding="utf-8")
    failed = run(program, "compare", VOICE, LADDER, tmp_path / "texts.txt", nfe, check=False)
    assert failed.returncode == 1 and said in failed.stderr
