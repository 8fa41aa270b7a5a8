"""The cores of this machine, and work spread over them by threads: for what leaves Python while it computes."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_all(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """What a function returns for each item, several at a time; the first error is raised. Not to be nested."""
    if len(items) < 2 or cores() < 2:
        return [function(item) for item in items]
    return list(_pool().map(function, items))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), "seqhash")
