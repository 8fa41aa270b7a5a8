"""The guide's examples run as they stand there: all blocks of a page, in an empty folder."""

import os
import re
from pathlib import Path

import pytest

from tests.processes import QUICKLY, ROOT, Running

PAGES = [*sorted((ROOT / "docs" / "guide").glob("*.md")), ROOT / "docs" / "reference.md"]


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
