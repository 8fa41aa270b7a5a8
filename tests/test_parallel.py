import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import jax
import pytest

from seqhash import parallel
from tests.processes import Running


def test_threads_keep_the_order_and_raise_the_first_error(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 4)
    assert parallel.map_all(abs, [-3, 2, -1]) == [3, 2, 1]
    with pytest.raises(ZeroDivisionError):
        parallel.map_all(lambda item: 1 // item, range(3))


def nested() -> None:
    """Three calls deep, with more items than threads at each."""
    parallel.cores = lambda: 2
    inner = lambda i: sum(parallel.map_all(lambda j: i * j, range(4)))  # noqa: E731
    outer = lambda i: sum(parallel.map_all(inner, range(i, i + 4)))  # noqa: E731
    print(parallel.map_all(outer, range(4)))


@pytest.mark.slow
def test_calls_may_be_nested():
    expected = [6 * sum(range(i, i + 4)) for i in range(4)]
    assert Running(nested).ended(timeout=60) == (0, f"{expected}\n", "")


def test_an_error_does_not_wait_for_what_is_running(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    running, done = threading.Event(), threading.Event()

    def one(item: int) -> None:
        if item:
            running.set()
            done.wait(60)
        else:
            running.wait(60)
            raise ZeroDivisionError

    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        parallel.map_all(one, range(2))
    assert time.monotonic() - begun < 30
    done.set()


def divide(folder: Path, number: int) -> int:
    (folder / str(number)).touch()
    if number > 9:
        time.sleep(600)
    return 10 // number


def greet(folder: Path) -> None:
    (folder / "started").touch()


@pytest.mark.slow
def test_processes_give_what_calls_return_and_the_first_error_ends_all(tmp_path):
    calls = [(tmp_path, number) for number in (1, 5, 2)]
    results = dict(
        parallel.in_processes(divide, calls, workers=2, start=greet, start_with=(tmp_path,))
    )
    assert results == {(tmp_path, 1): 10, (tmp_path, 5): 2, (tmp_path, 2): 5}
    assert (tmp_path / "started").exists()
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        list(parallel.in_processes(divide, [(tmp_path, 99), (tmp_path, 0)], workers=2))
    assert time.monotonic() - begun < 60
    assert multiprocessing.active_children() == []


def interrupted(folder: Path) -> None:
    """Ctrl-C, which all processes of a terminal get."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    calls = [(folder, number) for number in (1, 10, 11)]
    begun = time.monotonic()
    try:
        for (_, number), _ in parallel.in_processes(divide, calls, workers=2):
            assert number == 1
            while not (folder / "11").exists():
                time.sleep(0.01)
            os.killpg(0, signal.SIGINT)
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - begun < 60)
    print(multiprocessing.active_children())


@pytest.mark.slow
def test_ctrl_c_ends_the_processes_without_a_word_of_theirs(tmp_path):
    done = Running(interrupted, tmp_path).ended()
    assert (done.status, done.out, done.err) == (0, "interrupted True\n[]\n", "")


@pytest.mark.parametrize(
    ("cores", "batch_size", "devices"),
    [(6, None, 6), (6, 128, 4), (6, 192, 6), (2, 128, 2), (8, 33, 1), (8, 16, 1)],
)
def test_every_core_is_a_device_that_has_a_part_of_the_batch(
    monkeypatch, cores, batch_size, devices
):
    made = {}
    monkeypatch.setattr(parallel, "cores", lambda: cores)
    monkeypatch.setattr(jax.config, "update", made.__setitem__)
    parallel.use_all_cores(batch_size)
    assert made == {"jax_num_cpu_devices": devices}


def note_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def sleep_in_a_process(path: str) -> None:
    list(parallel.in_processes(note_and_sleep, [(path,)], workers=1))


@pytest.mark.slow
def test_workers_end_with_the_process_that_they_work_for(tmp_path):
    """It was killed, and could not end them."""
    note = tmp_path / "pid"
    running = Running(sleep_in_a_process, str(note))
    deadline = time.monotonic() + 60
    while not (note.is_file() and note.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(running.process.pid, signal.SIGKILL)
    running.ended(timeout=20)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{note.read_text()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
