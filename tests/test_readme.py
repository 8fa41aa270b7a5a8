import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# The last block of the tour starts from a prepared corpus; here, three works' worth of random walks.
SETUP = """
import jax; jax.config.update("jax_num_cpu_devices", 1)
from tests.test_train import small_store

import pytest

pytestmark = pytest.mark.slow
prepared = small_store(frames=2500)
"""


def test_the_tour_of_the_readme_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    program = SETUP + "".join(blocks)
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "bit error rate" in done.stdout
