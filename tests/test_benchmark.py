import json
import subprocess
import sys
from pathlib import Path

from experiments import benchmark
from seqhash.config import Config

ROOT = Path(__file__).parents[1]


def call(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.benchmark", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_flop_of_a_step_by_hand():
    # 100 frames through 4 gates of (13 + 128) x 128, through 4 of 128 x 128, and the read-out; 2 FLOP; three passes.
    by_hand = 3 * 100 * 2 * (4 * 141 * 128 + 4 * 128 * 128 + 128 * 13)
    assert benchmark._step_flop() == by_hand
    assert Config().train.batch_size == 128  # what the benchmark says it measures


def test_mfcc_measures_every_system_and_writes_json(tmp_path):
    done = call("mfcc", "--rounds=1", "--seconds=2", f"--output={tmp_path / 'out.json'}")
    assert done.returncode == 0, done.stderr
    rates = json.loads((tmp_path / "out.json").read_text())["rates"]
    assert set(rates) == {"ours, stream", "ours, jitted mfcc", "librosa", "python_speech_features"}
    assert all(rate > 1 for rate in rates.values())
    assert "| librosa |" in done.stdout


def test_a_train_measurement_gives_a_rate():
    done = call("train", "--system=ours", "--steps=16")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 10


def test_an_unknown_benchmark_is_said():
    done = call("everything")
    assert done.returncode == 2
    assert "Name one benchmark: mfcc or train" in done.stderr
