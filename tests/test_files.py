"""Whatever stops a replacement, the old or the new is there, whole."""

import inspect
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seqhash import files

# Ends itself at the N-th thing that it asks of the file system: program N PATH.
KILLED = """
import os, signal, sys
from pathlib import Path
from seqhash import files

left = int(sys.argv[1])

def count(event, arguments):
    global left
    left -= event == "open" or event.startswith(("os.", "shutil."))
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

"""


def killed(step: int, write: Callable[[Path], None], path: Path) -> bool:
    """Whether it was; False where the program ended before so many steps."""
    run = f"sys.addaudithook(count)\n{write.__name__}(Path(sys.argv[2]))\nleft = -1"
    code = f"{KILLED}\n{inspect.getsource(write)}\n{run}"
    status = subprocess.run([sys.executable, "-c", code, str(step), str(path)]).returncode
    assert status in (-signal.SIGKILL, 0)
    return status != 0


def write_file(path: Path) -> None:
    with files.replacing(path) as file:
        file.write(b"new" * 1000)


def write_folder(path: Path) -> None:
    with files.replacing_folder(path) as fresh:
        (fresh / "a").write_text("new")
        (fresh / "b").write_text("new")


def old_folder(path: Path) -> None:
    path.mkdir()
    for name in ("a", "b", "c"):
        (path / name).write_text("old")
    (path / "mine").mkdir()
    (path / "mine" / "thesis").write_text("years of work")


def test_a_file_is_replaced_and_an_error_leaves_the_old_one(tmp_path):
    path = tmp_path / "x"
    write_file(path)
    assert path.read_bytes() == b"new" * 1000

    def fail():
        with files.replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"new" * 1000
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_a_kill_at_any_step_interrupts_is_old_or_new(tmp_path):
    path, step, seen = tmp_path / "x", 1, []
    path.write_bytes(b"old")
    while killed(step, write_file, path):
        seen.append(path.read_bytes())
        step += 1
    assert set(seen) == {b"old"}
    assert len(seen) >= 2
    assert path.read_bytes() == b"new" * 1000


def test_a_folder_keeps_what_it_does_not_replace(tmp_path):
    path = tmp_path / "x"
    old_folder(path)
    write_folder(path)
    found = {f.relative_to(path).as_posix(): f.read_text() for f in path.rglob("*") if f.is_file()}
    assert found == {"a": "new", "b": "new", "c": "old", "mine/thesis": "years of work"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_a_folders_place_is_left_alone(tmp_path):
    (tmp_path / "x").write_text("years of work")
    with pytest.raises(NotADirectoryError, match="must be a folder"):
        write_folder(tmp_path / "x")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["years of work"]


def test_a_folder_is_replaced_where_a_link_leads(tmp_path):
    old_folder(tmp_path / "there")
    (tmp_path / "x").symlink_to(tmp_path / "there")
    write_folder(tmp_path / "x")
    assert (tmp_path / "there" / "a").read_text() == "new"
    assert (tmp_path / "x").is_symlink()


@pytest.mark.parametrize(("call", "number"), [("mkdir", 1), ("rename", 1), ("rename", 2)])
def test_an_error_at_a_step_leaves_the_old_folder(tmp_path, monkeypatch, call, number):
    path, calls = tmp_path / "x", []
    old_folder(path)
    before = {f: f.read_text() for f in path.rglob("*") if f.is_file()}
    real = getattr(Path, call)

    def failing(self, *arguments, **keywords):
        calls.append(self)
        if len(calls) == number:
            raise OSError("no more")
        return real(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, call, failing)
        with pytest.raises(OSError, match="no more"):
            write_folder(path)
    assert {f: f.read_text() for f in path.rglob("*") if f.is_file()} == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_folder_that_a_kill_at_any_step_interrupts_is_old_or_new(tmp_path):
    step, seen = 1, []
    while True:
        path = tmp_path / str(step) / "x"
        path.parent.mkdir()
        old_folder(path)
        if not killed(step, write_folder, path):
            break
        there = files.present(path)
        seen.append((there / "a").read_text() + (there / "b").read_text())
        assert seen[-1] in ("oldold", "newnew")
        write_folder(path)
        assert (path / "mine" / "thesis").read_text() == "years of work"
        assert (path / "a").read_text() == "new"
        assert files.present(path) == path
        step += 1
    assert set(seen) == {"oldold", "newnew"}


def test_a_damaged_result_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"a": 1}')
    assert files.read_json(path) == {"a": 1}
    for damage in (b"", b'{"a": ', b"[1]", b"\xff", b"[" * 100_000, b'{"a": 1}x'):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"results\.json: damaged \(.*delete it"):
            files.read_json(path)
