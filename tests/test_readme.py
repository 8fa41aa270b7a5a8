import ast
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from seqhash import cli, songbook
from tests.processes import QUICKLY, ROOT, Running


def tour(program: str, folder: Path) -> None:
    os.chdir(folder)
    exec(compile(program, "README.md", "exec"), {})


@pytest.mark.slow
def test_the_tour_of_the_readme_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    done = Running(tour, blocks[0], tmp_path, **QUICKLY).ended()
    assert done.status == 0, done.err[-2000:]
    said = re.findall(r"^# (bit error rate .+)$", blocks[0], re.MULTILINE)
    assert said == done.out.splitlines()[:1]  # what the page says that it prints


@pytest.mark.slow
def test_the_quick_start_prints_what_it_says(tmp_path, monkeypatch, capsys):
    """Seven songs of the songbook; a clip in noise as loud as it is, and one that is faster."""
    rate, names = songbook.SAMPLE_RATE, [work.work_id for work in songbook.works()][:7]
    songs = {name: songbook.render(name, "orig", seed=0) for name in names}
    (tmp_path / "music").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, song in songs.items():
        soundfile.write(tmp_path / "music" / f"{name}.flac", song, rate)
    clip = songs["greensleeves"][20 * rate : 23 * rate]
    noise = np.random.default_rng(0).standard_normal(len(clip))
    soundfile.write("clip.wav", clip + noise * clip.std() / noise.std(), rate)
    soundfile.write("faster.wav", soxr.resample(clip, 1.05 * rate, rate), rate)

    def numbers(lines):
        return [float(one) for line in lines for one in re.findall(r"[+-]?\d+(?:\.\d+)?", line)]

    shown = (ROOT / "README.md").read_text().partition("**I have music and a clip.**")[2]
    shown = [line.strip() for line in shown.partition("A score of")[0].splitlines() if line.strip()]
    commands = [line for line in shown if line.startswith("$ ")]
    for command in commands:
        words = command.replace(" /music", f" {tmp_path / 'music'}").split()[2:]
        assert cli.main(words) == 0
    out, err = capsys.readouterr()
    said = [*err.splitlines(), *out.replace(f"{tmp_path}", "").splitlines()]
    wanted = [line for line in shown if line not in commands]
    assert [re.sub(r"[-+.:%\d\s]", "", line) for line in said] == [
        re.sub(r"[-+.:%\d\s]", "", line) for line in wanted
    ]
    assert numbers(said) == pytest.approx(numbers(wanted), abs=0.3)


def imported(module: str) -> set[str]:
    """All words of the imports of the modules of a name."""
    nodes = (
        node
        for file in (ROOT / "seqhash").rglob(f"{module}.py")
        for node in ast.walk(ast.parse(file.read_text()))
    )
    imports = (node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    return set().union(*(re.findall(r"\w+", ast.unparse(node)) for node in imports))


def test_every_arrow_of_the_readme_is_an_import():
    text = (ROOT / "README.md").read_text()
    drawn = text.partition("No arrow leads back:")[2].partition("[Architecture]")[0]
    drawn = re.sub(r"^ +\w+/  +", "", drawn, flags=re.MULTILINE)  # the folder that a row is of
    arrows = []
    for chain in re.split(r"[;\n]", drawn):
        steps = [re.findall(r"\w+", one) for one in chain.split(" -> ")]
        for sources, users in itertools.pairwise(steps):
            arrows += itertools.product(sources, users)
    assert len(arrows) > 40
    assert [arrow for arrow in arrows if arrow[0] not in imported(arrow[1])] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_goes_on_where_a_virtual_environment_failed_and_spares_models(tmp_path):
    """Debian without python3-venv leaves a bin/python without pip behind."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").touch()

    def make(*arguments):
        command = ["make", f"VENV={tmp_path / 'venv'}", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert "-m venv" in make("--dry-run", "demo").stdout
    failed = make("PYTHON=false", "demo")
    assert failed.returncode == 2
    assert "apt install python3-venv" in failed.stderr
    (tmp_path / "venv" / "bin" / "pip").touch()
    assert "-m venv" not in make("--dry-run", "demo").stdout
    assert [
        word for word in make("--dry-run", "clean").stdout.split() if word.startswith("runs")
    ] == ["runs/demo"]
