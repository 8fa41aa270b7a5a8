"""Everything that changes an index, killed at random moments or without room on the disk: what was
reported is there, and what was under way is there whole or not at all.

A few kills; ``SEQHASH_KILLS=1000 pytest tests/test_kills.py`` makes a thousand, in some minutes.
"""

import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from seqhash.index import catalogue, exchange
from seqhash.index.catalogue import Entry, File, Identity, IndexFileError, open_index

KILLS = int(os.environ.get("SEQHASH_KILLS", "10"))
IDENTITY = Identity("paper-128", "ab" * 32, 4.0, 4, 8_000)
# jax warns of its threads; the forked process has nothing of it
pytestmark = [
    pytest.mark.filterwarnings("ignore:os.fork"),
    pytest.mark.filterwarnings("ignore:This process"),
]
STEPS = 60  # of a process; it is mostly killed before


def entry(number, path=None):
    words = np.full((60, 4), number, np.uint32)
    return Entry(path or f"/music/{number}", f"{number:064x}", words, 15.0)


def change(index, other, seed, step, state):
    """One change of an index, chosen by its seed and step; the state that it leads to: path by
    number.
    """
    rng, state = np.random.default_rng([seed, step]), dict(state)
    numbers, fresh = sorted(state), 1_000_000 * (seed + 1) + 1_000 * step
    rows = {int(row.digest, 16): row.id for row in index.rows()}
    kind = rng.integers(6) if len(numbers) > 3 else 0
    if kind == 0:
        new = [fresh, fresh + 1]
        index.add(map(entry, new), [File(f"/music/{n}", f"{n:064x}", "1 2 3") for n in new])
        state |= {n: f"/music/{n}" for n in new}
    elif kind == 1:
        moved = rng.choice(numbers)
        index.move({rows[moved]: f"/moved/{step}"}, {}, [rows[numbers[0]]])
        state[moved] = f"/moved/{step}"
        del state[numbers[0]]
    elif kind == 2:
        index.remove([rows[numbers[-1]], rows[numbers[0]]])
        del state[numbers[-1]], state[numbers[0]]
    elif kind == 3:
        exchange.merge(index, other)
        state |= {n: state.get(n, f"/music/{n}") for n in (1, 2, 3)}
    elif kind == 4:
        index.compact()
    else:  # as a file that was retagged
        old = rng.choice(numbers)
        index.add([entry(old)._replace(digest=f"{fresh:064x}", path=f"/retagged/{step}")])
        (new,) = [row.id for row in index.rows() if row.digest == f"{fresh:064x}"]
        index.move({}, {rows[old]: new})
        del state[old]
        state[fresh] = f"/retagged/{step}"
    return state


def worker(path, other, seed, report):
    """Changes an index until it is killed; says each step that is done."""
    with open_index(path) as index:
        state = {int(row.digest, 16): row.path for row in index.rows()}
        for step in range(STEPS):
            state = change(index, other, seed, step, state)
            os.write(report, bytes([step]))


def read(path):
    with open_index(path, readonly=True) as index:
        assert index.verify() == []
        index.load()
        return {int(row.digest, 16): row.path for row in index.rows()}


def allowed(before, other, folder, seed, done):
    """The states after the steps that were reported, and after one more: its parts too."""
    copy = folder / "copy"
    copy.write_bytes(before)
    states = []
    with open_index(copy) as index:
        state = {int(row.digest, 16): row.path for row in index.rows()}
        for step in range(done):
            state = change(index, other, seed, step, state)
        states.append(dict(state))
        with pytest.MonkeyPatch.context() as patch:  # each transaction ends in one of them
            real = catalogue._transaction

            def noted(db, *, write):
                def states_after():
                    with real(db, write=write):
                        yield
                    if write:
                        lines = db.execute("SELECT digest, path FROM recordings").fetchall()
                        states.append({int(digest, 16): name for digest, name in lines})

                return catalogue.contextlib.contextmanager(states_after)()

            patch.setattr(catalogue, "_transaction", noted)
            if done < STEPS:
                change(index, other, seed, done, state)
    return states


@pytest.fixture
def other(tmp_path):
    """An index to be merged, beside ``i`` of six recordings."""
    for name, numbers in (("other", (1, 2, 3)), ("i", range(4, 10))):
        with open_index(tmp_path / name, identity=IDENTITY, create=True) as index:
            index.add(map(entry, numbers))
    return tmp_path / "other"


def broken_off(path, other, seed, *, seconds=None, limit=None):
    """Has a process change an index, until it is killed after some seconds, or no file may grow
    beyond a limit; the steps that it reported.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            worker(path, other, seed, writing)
        except IndexFileError as error:
            os._exit(3 if "what was added before is kept" in str(error) else 4)
        finally:
            os._exit(0)
    os.close(writing)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert seconds is not None or os.waitstatus_to_exitcode(status) in (0, 3)
    with os.fdopen(reading, "rb") as report:
        return len(report.read())


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path, other):
    path, rng, killed = tmp_path / "i", np.random.default_rng(0), 0
    for seed in range(KILLS):
        before = path.read_bytes()
        done = broken_off(path, other, seed, seconds=rng.uniform(0, 0.3))
        killed += done < STEPS
        state = read(path)
        assert state in allowed(before, other, tmp_path, seed, done), f"seed {seed}"
        if len(state) > 40:
            path.write_bytes(before)
    assert killed > KILLS / 5  # the others came too late


def test_a_disk_that_is_full_at_any_moment(tmp_path, other):
    path, stopped = tmp_path / "i", 0
    before = path.read_bytes()
    for limit in np.linspace(0, 1.3 * len(before), max(6, KILLS // 2)).astype(int).tolist():
        path.write_bytes(before)
        done = broken_off(path, other, 5, limit=limit)
        stopped += done < STEPS
        assert read(path) in allowed(before, other, tmp_path, 5, done), f"limit {limit}"
    assert stopped >= 4


def test_a_killed_process_is_no_reason_to_lose_what_another_adds(tmp_path):
    path = tmp_path / "i"
    with open_index(path, identity=IDENTITY, create=True) as index:
        index.add([entry(1)])
        child = os.fork()
        if not child:
            with open_index(path) as mine:
                mine._connection.execute("BEGIN IMMEDIATE")
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert index.add([entry(2)]) == [True]
    assert read(Path(path)).keys() == {1, 2}
