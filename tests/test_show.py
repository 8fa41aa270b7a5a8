"""The first stage of the demo, on three works of the songbook."""

import csv
import json
import re

import pytest
import soundfile

from seqhash import songbook
from tests.processes import QUICKLY, run_module

WORKS = ("oh_susanna", "greensleeves", "fur_elise")


@pytest.mark.slow
def test_recordings_and_covers_are_found_and_not_asked_again(tmp_path):
    with open(tmp_path / "covers.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "work_id", "role", "title"])
        for work in WORKS:
            for version, role in (("orig", "original"), ("cov2", "cover")):
                name = f"{work}-{version}.flac"
                samples = songbook.render(work, version, seed=0)
                soundfile.write(tmp_path / name, samples, songbook.SAMPLE_RATE)
                rows.writerow([name, work, role, work])
    flags = [f"--workdir={tmp_path}", f"--corpus={tmp_path / 'covers.csv'}", "--clips=3"]
    done = run_module("experiments.show", *flags, **QUICKLY)
    assert done.status == 0, done.err[-3000:]
    assert done.out.count("$ seqhash add ") == 2
    assert "added 3, already there 0, failed 0" in done.out
    kept = json.loads((tmp_path / "show" / "show.json").read_text())
    answers = kept["answers"]
    for kind in ("a clip as it is", "in noise as loud as it is", "two semitones higher"):
        assert [one["answer"] for one in answers[kind]] == list(WORKS), kind
        assert all(abs(one["offset_error"]) < 0.1 for one in answers[kind])
        assert re.search(rf"^{kind} +semitone-32 +100 +0 +0 +\d+ ms$", done.out, re.MULTILINE)
    assert [one["answer"] for one in answers["a cover, its nearest original"]] == list(WORKS)
    assert (tmp_path / "show" / "found.png").read_bytes().startswith(b"\x89PNG")

    del answers["two semitones higher"]  # as if the run had been killed there
    answers["a clip as it is"][0]["answer"] = "what was kept"
    (tmp_path / "show" / "show.json").write_text(json.dumps(kept))
    again = run_module("experiments.show", *flags, **QUICKLY)
    assert again.status == 0, again.err[-3000:]
    assert "added 0, already there 3, failed 0" in again.out
    answers = json.loads((tmp_path / "show" / "show.json").read_text())["answers"]
    assert answers["a clip as it is"][0]["answer"] == "what was kept"
    assert [one["answer"] for one in answers["two semitones higher"]] == list(WORKS)
