"""Every command that changes an index, while one of its system calls is refused: nothing that was
there or reported is lost, nothing is there by halves, and what went wrong is one line.

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
WHOLE = ("remove", "compact")  # one transaction each


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="a library is compiled and preloaded"
)
def test_a_disk_that_is_full_or_breaks_at_any_system_call(tmp_path):
    refused, ended = Counter[str](), Counter[int]()
    for case in failing.broken_off(tmp_path, CALLS):
        if not case.call:
            end = case
            assert (case.status, case.name) == (0, ""), case
            continue
        refused[case.name], ended[case.status] = refused[case.name] + 1, ended[case.status] + 1
        before, state, after = map(set, (end.before, case.state, end.state))
        assert case.problems == [], case
        assert before & after <= state <= before | after, case
        assert case.command not in WHOLE or state in (before, after), case
        assert "Traceback" not in case.err, case
        *lines, last = case.err.splitlines() or [""]
        if case.status == 2:
            assert last.startswith("error: "), case
        else:
            assert case.status == 0 or (case.status == 3 and "failed" in case.err), case
            assert state == after or "failed " in case.err, case
        assert not any(line.startswith("error") for line in lines), case
        if case.out.startswith("added "):
            new = set(end.state) - set(end.before)
            number = int(case.out.split()[1].rstrip(","))
            assert case.command == "update" or number == len(state & new), case
        assert (case.again, case.left) == (end.again, end.left), case
    assert ended[2] > 3 * CALLS
    print(f"{refused.total()} refused: {dict(refused)}; exit statuses {dict(ended)}")
