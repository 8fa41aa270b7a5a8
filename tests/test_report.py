"""The report of a made-up result: every number is on the page, the pictures are as they should be,
a browser opens it.

The browser is Chromium or Chrome on the PATH, or what the variable CHROME names; without one those
tests are skipped.
"""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
import soundfile

from seqhash.robustness import figures, report

SYSTEMS = ("paper-128", "philips", "<b>shazam & $co$")
DEGRADATIONS = {
    "clean": ("clean", None),
    "white_noise_10db": ("white noise", 10.0),
    "white_noise_0db": ("white noise", 0.0),
    "white_noise_-5db": ("white noise", -5.0),
    "noise_10db": ("noise", 10.0),
    "noise_0db": ("noise", 0.0),
    "room": ("room", 0.0),
    "gsm": ("codec", 13.0),
    "speed_+4%": ("speed", 4.0),
    "pitch_-1": ("pitch", -1.0),
    'bar "late"': ("chain", 3.0),
    "hall": ("chain", 2.0),
}
LENGTHS = (1, 2.5, 10)
MISSING = ("philips", "room", 10)  # a cell that was not measured


def made_up():
    """A result whose numbers are all different from one another and from what the page says
    anyway.
    """
    rng = np.random.default_rng(0)
    rows = []
    for system in SYSTEMS:
        for name in DEGRADATIONS:
            for length in LENGTHS:
                low, hit, high = np.sort(rng.random(3))
                bits = system != SYSTEMS[2]
                rows.append(
                    {
                        "system": system,
                        "degradation": name,
                        "length": length,
                        "queries": int(rng.integers(100, 999)),
                        "hit": float(hit),
                        "hit_low": float(low),
                        "hit_high": float(high),
                        "near": float(rng.random()),
                        "hit_at_1_percent_false": float(rng.random()),
                        "false_positive": float(rng.random()),
                        "bit_error_true": float(rng.random()) if bits else None,
                        "bit_error_random": float(rng.random()) if bits else float("nan"),
                        "bytes_per_second": 344.5 if bits else None,
                        "ms_per_query": float(rng.random() * 100),
                    }
                )
    return {
        "command": 'python -m experiments.robustness --corpus="a & b.csv"',
        "versions": {"seqhash": "0.1.0", "jax": "0.10.9"},
        "machine": "two <fast> cores",
        "seconds": 4321.4,
        "settings": {
            "lengths": list(LENGTHS),
            "recordings": {"indexed": 54, "left_out": 6},
            "noise": None,
        },
        "systems": {
            name: {
                "description": f"what {name} is",
                "bytes_per_second": {SYSTEMS[0]: 64.0, SYSTEMS[1]: 344.5}.get(name),
            }
            for name in SYSTEMS
        },
        "degradations": {
            name: {"family": family, "strength": strength, "description": f"does {name}"}
            for name, (family, strength) in DEGRADATIONS.items()
        },
        "rows": [
            row for row in rows if (row["system"], row["degradation"], row["length"]) != MISSING
        ],
        "half_found_snr": [
            {
                "system": "paper-128",
                "noise": "white noise",
                "length": 1,
                "snr_db": -3.14,
                "note": "",
            },
            {
                "system": "philips",
                "noise": "white noise",
                "length": 1,
                "snr_db": None,
                "note": "more than half always",
            },
        ],
        "histograms": {
            name: {"edges": [0, 0.25, 0.5, 0.75], "true": [6, 3, 1], "random": [0, 15, 5]}
            for name in SYSTEMS[:2]
        },
        "differences": [
            {
                "a": a,
                "b": SYSTEMS[0],
                "degradation": "clean",
                "length": length,
                "value": v,
                "low": v - 0.02,
                "high": up,
            }
            for a, length, v, up in (
                (SYSTEMS[1], 1, -0.0712, -0.01),
                (SYSTEMS[1], 10, 0.0333, 0.09),
            )
        ],
        "examples": [{"degradation": "clean", "path": "examples/clean.flac"}],
        "skipped": [["broken <1>.mp3", "it is empty"]],
    }


RESULT = made_up()
LITTLE = (
    RESULT
    | {key: dict([next(iter(RESULT[key].items()))]) for key in ("systems", "degradations")}
    | {"half_found_snr": [], "histograms": {}, "differences": [], "examples": [], "skipped": []}
    | {"rows": RESULT["rows"][:1]}
)


class Page(HTMLParser):
    """Tags with their attributes, the text of cells and of everything, and whether what is opened
    is closed.
    """

    EMPTY = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.cells, self.terms, self.words = [], [], [], [], ""
        self.feed(text)
        self.close()
        self.words = " ".join(self.words.split())  # as a browser shows it

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag in ("dt", "dd"):
            self.terms.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data
        if self.open and self.open[-1] in ("dt", "dd"):
            self.terms[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A folder with an example in it and the report of RESULT."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "examples").mkdir()
    time = np.arange(12 * 16_000) / 16_000
    soundfile.write(
        folder / "examples" / "clean.flac", 0.5 * np.sin(2 * np.pi * 440 * time), 16_000
    )
    assert report.html(RESULT, folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(workdir):
    return Page((workdir / "report.html").read_text(encoding="utf-8"))


def decoded(source, kind):
    prefix = f"data:{kind};base64,"
    assert source.startswith(prefix)
    return base64.b64decode(source[len(prefix) :], validate=True)


def rates_of(row):
    """What must be shown of a row, by arithmetic of its own."""
    keys = ("hit", "near", "hit_at_1_percent_false", "false_positive", "bit_error_true")
    return [str(row["queries"]), *(f"{row[key] * 100:.1f}" for key in keys if row[key] is not None)]


def test_table_has_the_columns_of_one_length_and_a_matrix_of_hits():
    lines = report.table(RESULT, length=10).splitlines()
    rows = [row for row in RESULT["rows"] if row["length"] == 10]
    assert len(rows) == 35
    for row, line in zip(rows, lines[2:], strict=False):
        assert line.startswith(row["system"])
        fields = line[len(row["system"]) :].split()
        assert set(rates_of(row)) <= set(fields)
        assert f"{100 * row['hit_low']:.1f} to {100 * row['hit_high']:.1f}" in line
    matrix = lines[lines.index("Hit rates in %, queries of 10 s") + 2 :]
    assert matrix[0].split() == ["degradation", *" ".join(SYSTEMS).split()]
    hits = {(row["system"], row["degradation"]): f"{100 * row['hit']:.1f}" for row in rows}
    for name, line in zip(DEGRADATIONS, matrix[2:], strict=False):
        assert line.startswith(name)
        assert line[len(name) :].split() == [hits.get((system, name), "-") for system in SYSTEMS]
    means = [
        100 * np.mean([row["hit"] for row in rows if row["system"] == system]) for system in SYSTEMS
    ]
    assert matrix[-1].split() == ["mean", *(f"{mean:.1f}" for mean in means)]
    assert len({len(line) for line in lines[2:37]}) == 1  # the last column ends at one place


def test_table_takes_the_middle_length():
    assert report.table(RESULT) == report.table(RESULT, length=2.5)
    with pytest.raises(ValueError, match=r"length must be one of \[1, 2.5, 10\], got 3"):
        report.table(RESULT, length=3)


def test_a_result_that_lacks_something_is_refused(tmp_path):
    part = {key: value for key, value in RESULT.items() if key not in ("histograms", "skipped")}
    for show in (report.table, lambda result: figures.pictures(result, tmp_path)):
        with pytest.raises(ValueError, match="has no histograms, skipped"):
            show(part)
    with pytest.raises(ValueError, match="has no rows"):
        report.html(RESULT | {"rows": []}, tmp_path)
    with pytest.raises(ValueError, match="nobody and clean"):
        report.table(RESULT | {"rows": [RESULT["rows"][0] | {"system": "nobody"}]})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_number_of_every_row_is_on_the_page(page):
    heads = [i for i, cell in enumerate(page.cells) if cell == "degradation"]
    assert len(heads) == len(LENGTHS)
    blocks = [page.cells[a:b] for a, b in zip(heads, [*heads[1:], len(page.cells)], strict=True)]
    for length, block in zip(LENGTHS, blocks, strict=True):
        for row in (row for row in RESULT["rows"] if row["length"] == length):
            at = block.index(row["system"], block.index(row["degradation"]))
            cells = block[at : at + 11]
            rates = rates_of(row)
            assert [cells[i] for i in (1, 2, 4, 5, 6, 7)] == [*rates, *["-"] * (6 - len(rates))]
            assert cells[3] == f"{100 * row['hit_low']:.1f} to {100 * row['hit_high']:.1f}"
            assert cells[10] == f"{row['ms_per_query']:.1f}"
    assert not re.search(r"\b(nan|None|inf)\b", page.words)


def test_the_text_table_is_on_the_page(page):
    for length in LENGTHS:
        for number in re.findall(r"(?<!\S)\d+\.\d(?!\S)", report.table(RESULT, length=length)):
            assert number in page.words


def test_the_rest_is_on_the_page(page):
    assert "\u22123.1" in page.cells
    assert "more than half always" in page.cells
    assert "\u22127.1 (\u22129.1 to \u22121.0)" in page.cells
    assert "+3.3 (+1.3 to +9.0)" in page.cells
    assert "philips against paper-128: better in 1, worse in 1 of 2 cells" in page.words
    for text in (
        RESULT["command"],
        "0.10.9",
        "two <fast> cores",
        "4321 s",
        "indexed 54, left_out 6",
        "1, 2.5, 10",
    ):
        assert text in page.words
    assert {"broken <1>.mp3", "it is empty", 'does bar "late"', f"what {SYSTEMS[2]} is"} <= set(
        page.cells
    )
    names, meanings = page.terms[::2], page.terms[1::2]
    count = len(report.COLUMNS)
    assert names[:count] == [column.title for column in report.COLUMNS]
    assert all(len(meaning) > 20 and meaning.endswith(".") for meaning in meanings[:count])


def test_the_page_begins_with_who_finds_most(page):
    hits = {
        system: [r["hit"] for r in RESULT["rows"] if (r["system"], r["length"]) == (system, 2.5)]
        for system in SYSTEMS
    }
    best = max(SYSTEMS, key=lambda system: np.mean(hits[system]))
    mean, clean = (f"{100 * value:.1f} %" for value in (np.mean(hits[best]), hits[best][0]))
    lead = f"Most is found by {best}: at 2.5 s, {mean} in the mean of all degradations, {clean} of"
    assert f"{lead} clean." in page.words


def test_the_page_is_well_formed_alone_and_escaped(page, workdir):
    assert page.open == []
    assert page.all("html")[0]["lang"] == "en"
    assert "width=device-width" in next(
        one["content"] for one in page.all("meta") if one.get("name") == "viewport"
    )
    assert "Robustness report of seqhash" in page.words
    assert page.all("title") == [{}]
    assert page.all("script") == []
    for _, attributes in page.tags:
        for source in (attributes.get("src"), attributes.get("href")):
            assert source is None or source.startswith(("data:", "#"))
    text = (workdir / "report.html").read_text(encoding="utf-8")
    assert "http" not in text.replace(RESULT["command"], "")
    assert "url(" not in text
    assert SYSTEMS[2] not in text
    assert SYSTEMS[2] in page.cells
    anchors = {one["href"][1:] for one in page.all("a")}
    assert anchors == {one["id"] for one in page.all("section")}


def test_pictures_are_inside_the_page_and_described(page, workdir):
    images = page.all("img")
    heat_maps = ["heat_map_1s", "heat_map_2.5s", "heat_map_10s"]
    curves = ["hit_bytes", "hit_snr_white_noise", "hit_snr_noise", "hit_length"]
    files = [workdir / f"{name}.png" for name in [*heat_maps, *curves, "bit_errors"]]
    assert len(images) == len(files)
    for image, file in zip(images, files, strict=True):
        data = decoded(image["src"], "image/png")
        assert data == file.read_bytes()
        pixels = matplotlib.image.imread(io.BytesIO(data))
        assert pixels.shape[0] > 300
        assert pixels.shape[1] > 600
        assert 0.02 < (pixels[..., :3].min(axis=-1) < 0.95).mean() < 0.95
        assert len(image["alt"]) > 40
    rows = [
        row["hit"] for row in RESULT["rows"] if (row["system"], row["length"]) == ("philips", 10)
    ]
    assert f"philips {100 * sum(rows) / len(rows):.1f} %" in images[2]["alt"]


def test_examples_can_be_played(page):
    (sound,) = page.all("audio")
    assert "controls" in sound
    assert sound["aria-label"] == "clean"
    data = decoded(sound["src"], "audio/mpeg")
    assert len(data) < 100_000
    samples, rate = soundfile.read(io.BytesIO(data))
    assert rate == 16_000
    assert len(samples) / rate == pytest.approx(
        10, abs=0.1
    )  # 12 s are cut to 10 s; MP3 adds a frame or two
    spectrum = np.abs(np.fft.rfft(samples[16_000:32_000]))
    assert np.argmax(spectrum) == 440  # Hz: one second has one bin each


def test_an_example_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "text.flac").write_text("no sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    paths = ("gone.flac", "text.flac", "empty.wav")
    result = LITTLE | {"examples": [{"degradation": "clean", "path": path} for path in paths]}
    page = Page(report.html(result, tmp_path).read_text(encoding="utf-8"))
    assert page.all("audio") == []
    assert re.search(r"gone\.flac cannot be played: .*No such file", page.words)
    assert re.search(r"text\.flac cannot be played: .*Format not recognised", page.words)
    assert "empty.wav cannot be played: it is empty." in page.words


def test_little_is_enough(tmp_path):
    """One system, one degradation, one length, nothing else: no curve, no histogram, no error."""
    row = RESULT["rows"][0] | {"hit": None, "hit_low": float("nan"), "hit_high": None, "near": None}
    result = LITTLE | {"rows": [row]}
    assert [path.name for path in figures.pictures(result, tmp_path / "new")] == ["heat_map_1s.png"]
    page = Page(report.html(result, tmp_path).read_text(encoding="utf-8"))
    assert [one["id"] for one in page.all("section")] == ["summary", "hits", "numbers", "made"]
    assert len(page.all("a")) == 4
    assert "Skipped files" not in page.words
    assert report.table(result).splitlines()[2].split()[4:6] == ["-", "-"]


def test_heat_map_shows_the_hit_rates():
    axes = figures.draw_heat_map(RESULT, 10).axes[0]
    shares = axes.images[0].get_array()
    assert shares.shape == (3, 12)
    for row in (row for row in RESULT["rows"] if row["length"] == 10):
        place = SYSTEMS.index(row["system"]), list(DEGRADATIONS).index(row["degradation"])
        assert shares[place] == row["hit"]
    assert np.argwhere(shares.mask).tolist() == [[1, 6]]  # MISSING
    texts = [text.get_text() for text in axes.texts]
    assert texts[12 + 6] == "-"
    assert texts[0] == f"{100 * shares[0, 0]:.0f}"
    assert [label.get_text() for label in axes.get_xticklabels()] == list(DEGRADATIONS)
    sizes = [RESULT["systems"][name]["bytes_per_second"] for name in SYSTEMS]
    for label, size in zip(axes.get_yticklabels(), sizes, strict=True):
        assert (f", {size or 0:,.0f} B/s" in label.get_text()) == (size is not None)
    assert len(axes.lines) == 7  # between eight families


def test_rates_against_bytes_are_the_means_of_the_rows():
    axes = figures.draw_bytes(RESULT).axes
    assert [one.get_title() for one in axes] == [f"{length:g} s" for length in LENGTHS]
    (line,) = [one for one in axes[0].lines if one.get_label() == SYSTEMS[1]]
    rows = [r for r in RESULT["rows"] if (r["system"], r["length"]) == (SYSTEMS[1], LENGTHS[0])]
    assert line.get_xdata() == [344.5]
    mean = np.mean([row["hit_at_1_percent_false"] for row in rows])
    assert line.get_ydata() == pytest.approx(mean)


def test_snr_curves_have_intervals_and_mark_the_half():
    figure = figures.draw_snr(RESULT, "white noise")
    assert [axes.get_title() for axes in figure.axes] == ["1 s", "2.5 s", "10 s"]
    curves = [bars for bars in figure.axes[2].containers]
    assert len(curves) == 3
    for system, bars in zip(SYSTEMS, curves, strict=True):
        rows = [
            next(
                r
                for r in RESULT["rows"]
                if (r["system"], r["degradation"], r["length"]) == (system, name, 10)
            )
            for name in ("white_noise_-5db", "white_noise_0db", "white_noise_10db")
        ]
        line, _, (segments,) = bars.lines
        np.testing.assert_allclose(np.float64(line.get_xdata()), [-5, 0, 10], atol=0.2)
        np.testing.assert_allclose(np.float64(line.get_ydata()), [row["hit"] for row in rows])
        for row, segment in zip(rows, segments.get_segments(), strict=True):
            np.testing.assert_allclose(segment[:, 1], [row["hit_low"], row["hit_high"]])
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [(-3.14, 0.5)]
    assert not [line for line in figure.axes[1].lines if line.get_marker() == "x"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["paper-128", "philips", r"<b>shazam & \$co\$"]


def test_length_curves_take_the_middle_of_each_family():
    axes = figures.draw_lengths(RESULT).axes
    names = [
        "clean",
        "white_noise_0db",
        "noise_0db",
        "room",
        "gsm",
        "speed_+4%",
        "pitch_-1",
        "hall",
    ]
    assert [one.get_title() for one in axes] == names
    line = axes[3].containers[1].lines[0]  # philips in a room: two lengths of three
    np.testing.assert_allclose(np.float64(line.get_xdata()), [1, 2.5])
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["1", "2.5", "10"]


def test_bit_error_histograms_are_shares():
    axes = figures.draw_bit_errors(RESULT).axes
    assert [one.get_title() for one in axes] == list(SYSTEMS[:2])
    outlines = {
        patch.get_label(): patch.get_data().values
        for patch in axes[0].patches
        if not patch.get_fill()
    }
    np.testing.assert_allclose(outlines["true places"], [0.6, 0.3, 0.1])
    np.testing.assert_allclose(outlines["random places"], [0, 0.75, 0.25])
    assert axes[0].get_xlim() == (0, 0.75)


# A real browser.

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROBE = """<script>addEventListener("load", async () => {
  const sounds = [...document.querySelectorAll("audio")];
  const length = (sound) => new Promise((done) => {
    if (sound.readyState) done(sound.duration);
    if (sound.error) done(0);
    sound.addEventListener("loadedmetadata", () => done(sound.duration));
    sound.addEventListener("error", () => done(0));
  });
  const found = {
    images: [...document.images].map((image) => image.naturalWidth),
    sounds: await Promise.all(sounds.map(length)),
    page: [document.documentElement.scrollWidth, document.documentElement.clientWidth],
    wide: [...document.querySelectorAll(".scroll")]
      .filter((box) => box.scrollWidth > box.clientWidth).length,
  };
  parent.postMessage(JSON.stringify(found), "*");
});</script>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """A function: the page's text, in a window -> what PROBE finds, and the lines of the
    console.
    """
    named = os.environ.get("CHROME")
    browser = next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} on the PATH; CHROME can name one")
    folder = tmp_path_factory.mktemp("browser")

    def open_page(text, *, width):
        (folder / "inner.html").write_text(
            text.replace("</body>", PROBE + "</body>"), encoding="utf-8"
        )
        # A window has a least width of its own, so the page is opened in a frame, which tells what
        # it finds.
        frame = f"""<!DOCTYPE html><title>frame</title><link rel="icon" href="data:,">
        <pre id="probe"></pre>
        <script>
        addEventListener("message", (message) => {{ probe.textContent = message.data; }});
        </script>
        <iframe src="inner.html" style="width:{width}px;height:900px;border:0"></iframe>"""
        (folder / "frame.html").write_text(frame, encoding="utf-8")
        options = "--headless=new --no-sandbox --disable-gpu --enable-logging=stderr --v=0"
        command = [
            browser,
            *options.split(),
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1600,1000",
        ]
        done = subprocess.run(
            [
                *command,
                "--virtual-time-budget=20000",
                "--dump-dom",
                (folder / "frame.html").as_uri(),
            ],
            capture_output=True,
            timeout=60,
            encoding="utf-8",
            errors="replace",
        )
        note = re.search(r'<pre id="probe">(.+?)</pre>', done.stdout)
        assert note is not None, done.stderr[-2000:]
        return json.loads(note[1]), [
            line for line in done.stderr.splitlines() if ":CONSOLE" in line
        ]

    return open_page


@pytest.mark.parametrize("width", [1400, 400])
def test_a_browser_shows_it_without_complaint(browse, workdir, page, width):
    found, console = browse((workdir / "report.html").read_text(encoding="utf-8"), width=width)
    assert console == []
    sizes = [
        matplotlib.image.imread(io.BytesIO(decoded(one["src"], "image/png"))).shape[1]
        for one in page.all("img")
    ]
    assert found["images"] == sizes
    assert found["sounds"] == [pytest.approx(10, abs=0.2)]
    assert found["page"][0] == found["page"][1]  # what is wider scrolls in its own box
    assert width - 20 <= found["page"][1] <= width  # less the scroll bar
    if width == 400:
        assert found["wide"] > 0


def test_the_browser_would_have_noticed(browse):
    """What the test above relies on: a broken picture, a broken sound, an error and a wide page are
    seen.
    """
    broken = """<!DOCTYPE html><title>broken</title><body>
    <img alt="" src="data:image/png;base64,AAAA">
    <audio src="data:audio/mpeg;base64,AAAA"></audio><p style="width:3000px">wide</p>
    <script>console.error("a complaint")</script></body>"""
    found, console = browse(broken, width=400)
    assert found["images"] == [0]
    assert found["sounds"] == [0]
    assert found["page"][0] >= 3000
    assert "a complaint" in "".join(console)
