"""The cores of this machine, and work spread over them: by threads what leaves Python while it
computes, by processes the rest."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from multiprocessing.connection import wait
from typing import Any, TypeVar

SEGMENTS_A_CORE = 32  # smallest part of a batch that keeps a core busy
Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_all_cores(batch_size: int | None = None) -> None:
    """Makes the CPU's cores devices of their own. Call before jax computes.

    One program on two cores is no faster than on one (the products of a step are too small to
    share); two devices are 1.8 times as fast as one core. GPUs and TPUs do not change.

    Args:
      batch_size: of the batches that the devices are to share: their number divides it, and each
        keeps at least SEGMENTS_A_CORE segments. None where nothing is shared: a device a core.
    """
    import jax  # late: worker processes do without

    devices = cores()
    if batch_size is not None:
        most = max(1, min(devices, batch_size // SEGMENTS_A_CORE))
        devices = max(n for n in range(1, most + 1) if batch_size % n == 0)
    jax.config.update("jax_num_cpu_devices", devices)


def map_all(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """What a function returns for each item, several at a time; the first error is raised at once.

    The threads are this call's own, so calls may be nested; they cost a tenth of a millisecond.
    """
    if len(items) < 2 or cores() < 2:
        return [function(item) for item in items]
    pool = ThreadPoolExecutor(min(cores(), len(items)), "seqhash")
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for what is running


def in_processes(
    function: Callable[..., Result],
    calls: Sequence[tuple],
    *,
    workers: int,
    start: Callable[..., Any] | None = None,
    start_with: tuple = (),
) -> Iterator[tuple[tuple, Result]]:
    """(arguments, what the function returned) of each call, as they end, by new processes.

    Ctrl-C does not reach them; where it or an error ends the iteration, they are killed, and where
    this process is killed they end by themselves.

    Args:
      calls: arguments of each.
      start: is called in each process, with ``start_with``, before the first.
    """
    others = {process.pid for process in multiprocessing.active_children()}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (start, start_with)) as pool:
        try:
            with ignoring_interrupts():
                running = {pool.submit(function, *call): call for call in calls}
            for done in as_completed(running):
                yield running[done], done.result()
        except BaseException:
            for process in multiprocessing.active_children():
                if process.pid not in others:
                    process.kill()
            raise


def _begin(start: Callable[..., Any] | None, start_with: tuple) -> None:
    """A worker's first call: it shall not outlive the one that it works for."""

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    if start is not None:
        start(*start_with)


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Processes that are started inside ignore Ctrl-C from their first moment."""
    if threading.current_thread() is not threading.main_thread():  # only there are signals set
        yield
        return
    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
