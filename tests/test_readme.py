import ast
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

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
