"""Tables of README and docs: filled from results, and up to date."""

import json

import pytest

from experiments import tables
from tests.processes import ROOT

RESULT = {
    "command": "python -m experiments.robustness --corpus=/data/a/music/manifest.csv "
    "--workdir=/tmp/x --lengths=1,3",
    "settings": {"recordings": {"indexed": 4, "left_out": 2}},
    "systems": {name: {"bytes_per_second": size} for name, size in (("ours", 64.0), ("p", None))},
    "rows": [
        {"system": system, "degradation": name, "length": length, "queries": 9, "hit": hit,
         "hit_low": 0.1, "hit_high": 1.0, "hit_at_1_percent_false": hit / 2, "ms": 3}
        for system, hit in (("ours", 0.98765), ("p", 0.5))
        for name in ("clean", "room")
        for length in (1, 3)
    ],
}  # fmt: skip


def test_what_is_kept_names_no_folder_of_this_machine():
    kept = tables.keep(RESULT, "robustness-1s")
    assert kept["command"] == (
        "python -m experiments.robustness --corpus=music/manifest.csv "
        "--workdir=runs/robustness-1s --lengths=1,3"
    )
    assert kept["rows"][0]["hit"] == 0.9877
    assert "ms" not in kept["rows"][0]


def test_a_table_stands_where_its_marks_are(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(tables.keep(RESULT, "r")))
    page = "before\n<!-- table hits r length=3 systems=ours~Our_hash rows=room -->\nold\n"
    made = tables.filled(page + "<!-- end -->\nafter\n", tmp_path)
    assert made.splitlines() == [
        "before",
        "<!-- table hits r length=3 systems=ours~Our_hash rows=room -->",
        "|                |    Our hash |",
        "|----------------|------------:|",
        "| room           |     99 / 49 |",
        "| mean of 2      | 98.8 / 49.4 |",
        "| bytes a second |          64 |",
        "<!-- end -->",
        "after",
    ]
    assert tables.filled(made, tmp_path) == made
    with pytest.raises(FileNotFoundError):
        tables.filled("<!-- table hits none -->\n<!-- end -->", tmp_path)


def test_no_table_is_stale():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text, tables.DATA) == text, f"{page.name}: run experiments.tables"
