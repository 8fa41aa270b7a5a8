"""The guide's examples run as they stand there: all blocks of a page, in an empty folder."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests import own_music
from tests.processes import QUICKLY, ROOT, Running

GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
PAGES = [*(page for page in GUIDE if page != own_music.PAGE), ROOT / "docs" / "reference.md"]


def follow(program: str, name: str, folder: Path) -> None:
    os.chdir(folder)
    exec(compile(program, name, "exec"), {"__name__": name})


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_of_the_guide_runs(page, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    done = Running(follow, "".join(blocks), page.name, tmp_path, **QUICKLY).ended()
    assert done.status == 0, done.err[-3000:]
    assert done.out.strip()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_your_own_music_prints_what_the_page_says(tmp_path):
    pytest.importorskip("av")
    own_music.make(tmp_path)
    asked = own_music.commands(own_music.PAGE.read_text())
    done = own_music.printed(tmp_path, [command for command, _ in asked])
    for (command, says), said in zip(asked, done, strict=True):
        words, numbers = _apart(said)
        assert words == _apart(says)[0], f"{command}\n{said}"
        assert numbers == pytest.approx(_apart(says)[1], rel=0.05, abs=0.5), f"{command}\n{said}"


def _apart(text):
    """Text without its spacing and its measured numbers, and these: other processors round
    otherwise.
    """
    number = r"\d+\.\d+"
    return re.sub(number, "#", text).split(), [float(one) for one in re.findall(number, text)]
