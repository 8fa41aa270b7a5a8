"""Every command that writes, while one of its system calls is refused: nothing that was there or
reported is lost, nothing is there by halves, and what went wrong is one line.

Some calls of each command; ``SEQHASH_CALLS=100000 pytest tests/test_system_calls.py`` refuses each
of them in turn.
"""

import os
import shutil
import sys
from collections import Counter

import pytest

from tests import failing

CALLS = int(os.environ.get("SEQHASH_CALLS", "5"))
WHOLE = ("remove", "compact", "export")  # one transaction, or file, each


def broken(case: failing.Case, end: failing.Case) -> list[str]:
    """Rules that a case breaks, beside the same command on a disk that is in order."""
    before, state, after = map(set, (end.before, case.state, end.state))
    *lines, last = case.err.splitlines() or [""]
    failed = any(line.startswith("failed ") for line in (*lines, last))
    # What could not be looked at may be there, and is left for the next time.
    waits = case.command == "update" and case.name == "stat64"
    states = [before, after]
    if case.command == "export faiss":  # or without its id map, never with another one's
        states += [{name for name in one if ".csv" not in name} for one in states]
    kept = {
        "whole": case.problems == [],
        "nothing lost": before & after <= state,
        "nothing else": state <= before | after,
        "all or nothing": case.command.split()[0] not in WHOLE or state in states,
        "one line": "Traceback" not in case.err and not any(map(is_error, lines)),
        "status": case.status == 2 if is_error(last) else case.status in (0, 3 * failed),
        "said": case.status == 2 or failed or waits or state == after,
        "goes on": (case.again, case.left) == (end.again, end.left),
    }
    if case.command.startswith(("add", "import")) and case.out:
        kept["counted"] = case.out.startswith(f"added {len(state - before)},")
    return [rule for rule, is_kept in kept.items() if not is_kept]


def is_error(line: str) -> bool:
    return line.startswith("error: ")


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="a library is compiled and preloaded"
)
def test_a_disk_that_is_full_or_breaks_at_any_system_call(tmp_path):
    refused, ended, wrong = Counter[str](), Counter[int](), []
    for case in failing.broken_off(tmp_path, CALLS):
        if not case.call:
            end = case
        else:
            refused[case.name] += 1
            ended[case.status] += 1
        if rules := broken(case, end):
            wrong.append((rules, case))
    print(f"{refused.total()} refused: {dict(refused)}; exit statuses {dict(ended)}")
    assert not wrong, "\n".join(f"{rules}: {case}" for rules, case in wrong)
    assert ended[2] > refused.total() / 2
