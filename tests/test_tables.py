"""Tables of README and docs: filled from results, and up to date."""

import hashlib
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


def test_a_mean_is_the_same_in_every_python(tmp_path):
    """From 3.12 on ``sum`` compensates for rounding."""
    hits = [0.71, 0.55, 0.84, 0.37]  # 61.8 by a plain sum
    rows = [
        RESULT["rows"][0] | {"degradation": f"d{i}", "hit": hit, "hit_at_1_percent_false": hit}
        for i, hit in enumerate(hits)
    ]
    (tmp_path / "r.json").write_text(json.dumps(tables.keep(RESULT | {"rows": rows}, "r")))
    made = tables.filled("<!-- table hits r systems=ours -->\n<!-- end -->", tmp_path)
    assert "61.7 / 61.7" in made


def test_speed_is_how_many_times_as_fast_as_faiss(tmp_path):
    rows = [
        {"case": case, "ours": 2.0, "faiss": 3.0, "floor": None}
        for cases in tables.SPEED.values()
        for case in cases
    ]
    result = {"command": "python -m experiments.benchmark search", "one core": {"exact": rows}}
    (tmp_path / "r.json").write_text(json.dumps(tables.keep(result, "r")))
    page = "<!-- table speed r heads=one_core -->\n<!-- end -->"
    made = tables.filled(page, tmp_path)
    assert "| one window of nine codes                     |             1.5 |" in made.splitlines()
    assert made.count("1.5 / 1.5 / 1.5") == 1
    page = "<!-- table search r cores=one -->\n<!-- end -->"
    row = tables.filled(page, tmp_path).splitlines()[3]
    assert row.split("|")[2:-1] == ["    2 ", "     3 ", "   1.5 "]


def test_trained_runs_stand_beside_the_paper():
    printed = "\n".join(
        [
            "| | 1 hash | 9 hashes | collisions (within + between), % |",
            "|--|--|--|--|",
            "| paper, its own corpus | 10.42 | 20.28 | 20.09 |",
            "| trained, threshold zero | 7.38 [5.1, 9.8] | 14.98 [9, 20] | 1.25 (1.20 + 0.06) |",
            "| untrained LSTM | 8.26 [6, 10] | 16.25 [11, 21] | 0.33 (0.22 + 0.11) |",
        ]
    )
    made = tables.KINDS["beside"]([{"paper": printed, "loss": [11.0, 4.09]}], {"heads": "a_run"})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.splitlines()]
    assert rows[0] == ["", "paper", "a run"]
    assert rows[2:] == [
        ["accuracy, 1 hash", "10.42", "7.38"],
        ["accuracy, 9 hashes", "20.28", "14.98"],
        ["untrained LSTM, 1 hash", "not reported", "8.26"],
        ["untrained LSTM, 9 hashes", "not reported", "16.25"],
        ["collision rate", "20.09", "1.25"],
        ["loss, first and last epoch", "8.88; 1.66", "11.00; 4.09"],
    ]


def test_rotations_are_so_many_times_as_long():
    command = "python -m experiments.benchmark search --output=/mine/turned.json"
    turned = [{"case": "n=9", "plain": 2.0, "turned": 9.0}]
    kept = tables.keep({"command": command, "one core": {"turned": turned}}, "rotations")
    assert kept["command"].endswith(" --output=runs/rotations.json")
    assert tables.KINDS["turned"]([kept], {}).split()[-2] == "4.5"


def test_rates_and_shares_of_the_peak(tmp_path):
    rates = {"ours, one core": 50.0, "torch, one core": 40.0, "ours, all cores": 80.0}
    result = {
        "command": "python -m experiments.benchmark train",
        "rates": rates | {"torch, all cores": 50.0, "GEMM, jax (GFLOP/s a core)": 1.0},
        "flop": 10_000_000,
        "peak": 1.0,
        "machine": {"cores": 2},
    }
    (tmp_path / "r.json").write_text(json.dumps(tables.keep(result, "r")))
    made = tables.filled("<!-- table train r -->\n<!-- end -->", tmp_path).splitlines()[3:-1]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made]
    assert cells == [
        ["one core", "50", "40", "1.25", "50 %"],
        ["all cores", "80", "50", "1.60", "40 %"],
    ]
    page = "<!-- table rates r heads=here -->\n<!-- end -->"
    made = tables.filled(page, tmp_path).splitlines()
    assert [cell.strip() for cell in made[4].split("|")] == [
        "",
        "torch, one core",
        "40",
        "1.25",
        "",
    ]


def test_a_picture_is_drawn_anew_where_its_result_is_another(tmp_path):
    result = tables.keep(RESULT, "r")
    (tmp_path / "r.json").write_text(json.dumps(result))
    page, picture = tmp_path / "page.md", tmp_path / "hits.png"
    page.write_text("<!-- picture heat_map r length=3 -->\n![Hits](hits.png)\n<!-- end -->\n")

    def stale(draw: bool) -> list:
        return list(tables.stale_pictures([page], tmp_path, draw=draw))

    assert stale(draw=False) == [(picture, "is stale")]
    assert not picture.exists()
    assert stale(draw=True) == [(picture, "drawn")]
    assert stale(draw=False) == []
    result["rows"][1]["hit"] = 0.25
    (tmp_path / "r.json").write_text(json.dumps(result))
    assert stale(draw=False) == [(picture, "is stale")]


def test_a_picture_that_was_kept_is_known_by_its_digest(tmp_path):
    page, picture = tmp_path / "page.md", tmp_path / "r.png"
    page.write_text("<!-- picture kept r -->\n![Bits](r.png)\n<!-- end -->\n")
    picture.write_bytes(b"a picture")
    kept = {"pictures": {"r.png": hashlib.sha256(b"a picture").hexdigest()[:32]}}
    (tmp_path / "r.json").write_text(json.dumps(kept))
    assert list(tables.stale_pictures([page], tmp_path, draw=True)) == []
    picture.write_bytes(b"another")
    ((path, why),) = tables.stale_pictures([page], tmp_path, draw=True)
    assert (path, "--keep" in why) == (picture, True)
    assert picture.read_bytes() == b"another"


def test_no_table_or_picture_is_stale():
    for page in tables.pages():
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text, tables.DATA) == text, f"{page.name}: run experiments.tables"
    assert list(tables.stale_pictures(tables.pages(), tables.DATA, draw=False)) == []


def test_every_picture_of_the_pages_is_held_by_a_result():
    pictures = {path for path in (ROOT / "docs").glob("*.png")}
    held = {
        (page.parent / link).resolve()
        for page in tables.pages()
        for *_, link in tables.PICTURE.findall(page.read_text(encoding="utf-8"))
    }
    assert pictures == held
