"""What the package shows: its face, its scripts, and how its things look."""

import inspect
import re
import runpy
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import seqhash
from experiments import __main__ as scripts
from seqhash.export import packaged
from seqhash.index.identify import Match
from tests.processes import ROOT

FACE = [*seqhash._SHORTCUTS, *seqhash._MODULES]


def test_the_face_is_there_and_described():
    declared = re.findall(r"^    from .+ import (\w+) as \1$", inspect.getsource(seqhash), re.M)
    assert sorted(declared) == sorted(FACE)
    page = (ROOT / "docs" / "reference.md").read_text()
    for name in FACE:
        assert name in dir(seqhash)
        shown = getattr(seqhash, name)
        methods = inspect.isclass(shown) and {
            key: value for key, value in vars(shown).items() if inspect.isroutine(value)
        }
        for key, thing in ({name: shown} | (methods or {})).items():
            assert key.startswith("_") or thing.__doc__, f"{name}.{key} has no docstring"
        assert f"seqhash.{name}" in page
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = seqhash.nothing


def test_the_face_costs_nothing_before_it_is_used():
    code = "import sys, seqhash; dir(seqhash); sys.exit(bool({'jax', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_there_is_one_version(monkeypatch):
    told = dict[str, Any]()
    setuptools = SimpleNamespace(setup=told.update, find_packages=lambda include: include)
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    runpy.run_path(str(ROOT / "setup.py"))
    assert told["version"] == seqhash.__version__
    assert "seqhash.experiments" in told["packages"]
    assert f"version: {seqhash.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    changes = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert changes[0] == seqhash.__version__


def test_scripts_run_wherever_their_folder_lies():
    """In a clone it is ``experiments``, in an installed package ``seqhash.experiments``."""
    assert {"train", "ablate", "robustness", "tables"} <= scripts.summaries().keys()
    assert all(summary.endswith(".") for summary in scripts.summaries().values())
    for path in (ROOT / "experiments").glob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(from|import) experiments", text, re.M), path
        assert '"experiments.' not in text, path


def test_a_script_is_run_by_its_name(capfd):
    assert scripts.main(["nothing"]) == 2
    assert "there are ablate" in capfd.readouterr().err
    assert scripts.main([]) == 0
    assert "python -m experiments NAME" in capfd.readouterr().out


@pytest.mark.parametrize("name", packaged())
def test_a_hasher_says_what_it_is(name):
    hasher = seqhash.load_hasher(name)
    shown = repr(hasher)
    assert name in shown
    assert f"{hasher.bits} bits" in shown
    assert len(shown) < 120


def test_a_match_says_what_it_is():
    match = Match(3, "a/b.wav", "", 0.0, 5.0, 10.25, 12, 0.012, 7.5)
    shown = "Match(3 'a/b.wav': 0.00-5.00 s from 10.25 s on, 1.2% of bits differ, score 7.5)"
    assert repr(match) == shown
    assert repr(match._replace(pitch=1.0, tempo=1.05)).endswith("+1.0 semitones, +5% tempo)")


def test_old_paths_lead_to_the_new_ones_and_hide_no_function_from_who_knows_none():
    program = """
import seqhash
assert callable(seqhash.identify)
from seqhash import ingest
from seqhash.identify import open_searcher
from seqhash.index import Entry, open_index
from seqhash.index.identify import open_searcher as here
assert open_searcher is here
assert ingest.__name__ == "seqhash.index.ingest"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
