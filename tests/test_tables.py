"""Tables, as they are read on a screen."""

import pytest

from seqhash import tables

ROWS = [["system", "hit, %"], ["a|b", "9.5"], ["philips", "100.0"]]


def test_text_by_hand():
    assert tables.text(ROWS) == "system   hit, %\na|b      9.5\nphilips  100.0"
    assert tables.text(ROWS, left=1, rule=True).splitlines() == [
        "system   hit, %",
        "-------  ------",
        "a|b         9.5",
        "philips   100.0",
    ]
    assert tables.text(ROWS[:1]) == "system  hit, %"


def test_markdown_by_hand():
    assert tables.markdown(ROWS, left=1).splitlines() == [
        "| system  | hit, % |",
        "|---------|-------:|",
        r"| a\|b    |    9.5 |",
        "| philips |  100.0 |",
    ]
    assert tables.markdown(ROWS).splitlines()[1] == "|---------|--------|"


def test_rows_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        tables.text([["a", "b"], ["c"]])
