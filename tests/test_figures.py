"""Figures are inspected as objects: what is drawn, where, and what the legend says; then written
and read back.
"""

import struct
import zlib

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.stats import ortho_group

from seqhash import figures

CEPSTRA = np.random.default_rng(0).normal(size=(100, 13))
STATES = np.tanh(np.random.default_rng(1).normal(size=(400, 32)))
WORKS = np.array([f"w{i:02d}" for i in range(20)]).repeat(20)
ROWS = [
    {
        "epoch": epoch,
        "train_loss": 9.0 - epoch,
        "validation_loss": 9.5 - epoch,
        "collision_rate": 0.2 / (1 + epoch),
        "accuracy": {"1": 0.1, "9": 0.2},  # keys as JSON leaves them
    }
    for epoch in range(4)
]
TABLE = {
    "trained": {
        1: (0.10, 0.08, 0.13),
        9: (0.18, 0.13, 0.23),
        17: (0.20, 0.15, 0.26),
        37: (0.24, 0.17, 0.31),
    },
    "untrained LSTM": {1: (0.11, 0.08, 0.14), 9: (0.19, 0.14, 0.25)},
    "random codes": {1: (0.04, 0.03, 0.05), 9: (0.05, 0.04, 0.06)},
}
MEANS = np.concatenate([[0.0, 0.0199, 0.02, 0.98, 0.9801], np.linspace(0.3, 0.7, 27)])


def legend_of(artist):
    """Texts of the legend of axes or of a figure."""
    legend = artist.legends[0] if isinstance(artist, Figure) else artist.get_legend()
    return [text.get_text() for text in legend.get_texts()]


def line(axes, label):
    return next(one for one in axes.lines if one.get_label() == label)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "width", "height"),
    [
        (lambda path: figures.mfcc_figure(CEPSTRA, path, title="first second"), 1125, 450),
        (lambda path: figures.pca_figure(STATES, WORKS, path), 1275, 840),
        (lambda path: figures.pca_figure(STATES, WORKS, path, genres=WORKS), 1875, 840),
        (lambda path: figures.training_figure(ROWS, path), 1575, 480),
        (lambda path: figures.accuracy_figure(TABLE, path, chance=0.05), 1275, 690),
        (lambda path: figures.bits_figure(MEANS, path), 1125, 480),
    ],
)
def test_a_png_is_written(tmp_path, write, width, height):
    path = write(tmp_path / "new folder" / "figure.png")
    assert path == tmp_path / "new folder" / "figure.png"
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (width, height)
    assert zlib.crc32(data[12:29]) == struct.unpack(">I", data[29:33])[0]
    pixels = matplotlib.image.imread(path)
    assert 0.02 < (pixels[..., :3].min(axis=-1) < 0.95).mean() < 0.9  # neither blank nor filled


def test_pyplot_is_not_used(tmp_path):
    import matplotlib.pyplot as plt

    figures.mfcc_figure(CEPSTRA, tmp_path / "figure.png", title="")
    assert plt.get_fignums() == []


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.png"):
        figures.bits_figure(MEANS, tmp_path / "figure.jpg")


def test_mfcc_has_white_at_zero_time_in_seconds_and_low_coefficients_below():
    cepstra = CEPSTRA + 1  # not centred: the colours must be
    axes = figures.draw_mfcc(cepstra, title="first second", frame_seconds=0.02).axes[0]
    image = axes.images[0]
    np.testing.assert_array_equal(image.get_array(), cepstra.T)
    assert image.origin == "lower"
    assert image.get_extent() == pytest.approx((0, 2.0, -0.5, 12.5))
    low, high = image.get_clim()
    assert low == -high
    assert [to_hex(image.to_rgba(value)) for value in (low, 0.0, high)] == [
        "#0000ff",
        "#fffefe",
        "#ff0000",
    ]
    assert axes.get_title() == "first second"
    assert axes.get_xlabel() == "time (s)"


def test_mfcc_of_silence_is_white():
    image = figures.draw_mfcc(np.zeros((100, 13)), title="silence").axes[0].images[0]
    assert to_hex(image.to_rgba(0.0)) == "#fffefe"


def test_pca_has_one_legend_entry_and_one_style_a_work():
    figure = figures.draw_pca(STATES, WORKS, titles={"w00": "Für Elise"})
    (axes,) = figure.axes
    assert legend_of(axes) == ["Für Elise", *(f"w{i:02d}" for i in range(1, 20))]
    handles = axes.get_legend().legend_handles
    assert len({(handle.get_color(), handle.get_marker()) for handle in handles}) == 20
    assert sum(len(cloud.get_offsets()) for cloud in axes.collections) == len(STATES)


def test_dollars_of_a_manifest_are_no_mathematics(tmp_path):
    title = "$A_ & $x^"  # matplotlib fails on it
    figures.mfcc_figure(CEPSTRA, tmp_path / "mfcc.png", title=title)
    works = np.where(WORKS == "w00", "$w_$", WORKS)
    figures.pca_figure(STATES, works, tmp_path / "pca.png", titles={"w01": title}, genres=works)
    literal = r"\$A_ & \$x^"
    assert figures.draw_mfcc(CEPSTRA, title=title).axes[0].get_title() == literal
    assert {literal, r"\$w_\$"} <= set(
        legend_of(figures.draw_pca(STATES, works, titles={"w01": title}).axes[0])
    )


def test_pca_finds_the_plane_of_the_data():
    """Points of a plane in 16 dimensions: all variance on two axes, 4 times as much (in units of 2)
    on the first.
    """
    generator = np.random.default_rng(3)
    plane = generator.normal(size=(300, 2)) * [2.0, 1.0]
    states = plane @ ortho_group.rvs(16, random_state=0)[:2]
    (axes,) = figures.draw_pca(states, ["a"] * 300).axes
    shares = plane.var(axis=0) / plane.var(axis=0).sum()
    assert f"{shares[0]:.0%}"[:2] in axes.get_xlabel()
    points = axes.collections[0].get_offsets()
    # Distances within the plane survive the projection.
    spread = np.linalg.norm(points - points.mean(axis=0), axis=1)
    expected = np.linalg.norm(plane - plane.mean(axis=0), axis=1)
    np.testing.assert_allclose(np.sort(spread), np.sort(expected), rtol=1e-6)


def test_pca_marks_the_mean_of_each_work():
    states = np.zeros((40, 4))
    states[20:, 0] = 1.0
    states[::2, 1] = 0.01
    (axes,) = figures.draw_pca(states, ["a"] * 20 + ["b"] * 20).axes
    means = np.array([[mark.get_xdata()[0], mark.get_ydata()[0]] for mark in axes.lines])
    np.testing.assert_allclose(np.abs(means), [[0.5, 0], [0.5, 0]], atol=1e-9)
    assert means[0, 0] == -means[1, 0]


def test_pca_by_genre_is_a_second_panel():
    genres = np.array(["classical", "folk"]).repeat(200)
    by_work, by_genre = figures.draw_pca(STATES, WORKS, genres=genres).axes
    assert legend_of(by_genre) == ["classical", "folk"]
    assert len(legend_of(by_work)) == 20
    assert by_genre.get_title() == "PCA of H, coloured by genre"


def test_pca_draws_a_fixed_sample_of_many_points(monkeypatch):
    monkeypatch.setattr(figures, "MAX_POINTS", 100)
    first, second = (figures.draw_pca(STATES, WORKS).axes[0] for _ in range(2))
    points = np.concatenate([cloud.get_offsets() for cloud in first.collections])
    assert points.shape == (100, 2)
    assert len(np.unique(points, axis=0)) == 100
    np.testing.assert_array_equal(
        points, np.concatenate([cloud.get_offsets() for cloud in second.collections])
    )
    assert len(legend_of(first)) == 20


def test_training_draws_every_curve():
    loss, repeats, accuracy = figures.draw_training(ROWS, chance=0.05).axes
    assert legend_of(loss) == ["training", "validation"]
    np.testing.assert_array_equal(line(loss, "training").get_ydata(), [9, 8, 7, 6])
    np.testing.assert_array_equal(line(loss, "training").get_xdata(), [0, 1, 2, 3])
    np.testing.assert_array_equal(line(loss, "validation").get_ydata(), [9.5, 8.5, 7.5, 6.5])
    np.testing.assert_allclose(repeats.lines[0].get_ydata(), [0.2, 0.1, 0.2 / 3, 0.05])
    assert legend_of(accuracy) == ["1 hash", "9 hashes", "chance"]
    np.testing.assert_array_equal(line(accuracy, "9 hashes").get_ydata(), [0.2] * 4)
    assert set(line(accuracy, "chance").get_ydata()) == {0.05}
    for axes, largest in ((loss, 9.5), (repeats, 0.2), (accuracy, 0.2)):
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > largest
    assert accuracy.yaxis.get_major_formatter()(0.125, 0) == "12.5%"


def test_training_leaves_out_what_is_not_there():
    rows = [
        {"epoch": 0, "train_loss": 9.0, "validation_loss": None},
        {"epoch": 2, "train_loss": 5.0, "accuracy": None},
    ]
    loss, repeats = figures.draw_training(rows).axes
    assert legend_of(loss) == ["training"]
    assert list(repeats.lines) == []
    partly = [
        {"epoch": 0, "train_loss": None, "accuracy": {1: 0.1}},
        {"epoch": 1, "train_loss": 7.0},
    ]
    loss, _, accuracy = figures.draw_training(partly).axes
    assert line(loss, "training").get_xdata().tolist() == [1]
    assert line(accuracy, "1 hash").get_xdata().tolist() == [0]


def test_accuracy_places_hashes_at_their_seconds():
    figure = figures.draw_accuracy(TABLE, chance=0.05)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xticks().tolist() == [1, 3, 5, 10]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "1 hash\n1 s",
        "9 hashes\n3 s",
        "17 hashes\n5 s",
        "37 hashes\n10 s",
    ]
    assert legend_of(figure) == [*TABLE, "paper (its own corpus)", "chance (5.0%)"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 0.31


def test_accuracy_tells_a_trained_system_and_five_floors_apart():
    table = {
        name: TABLE["trained"]
        for name in ("trained", "median", "untrained", "projection", "PCA", "random")
    }
    (axes,) = figures.draw_accuracy(table, chance=0.05).axes
    assert len({bars[0].get_marker() for bars in axes.containers}) == 6


def test_accuracy_draws_values_intervals_paper_and_chance():
    (axes,) = figures.draw_accuracy(TABLE, chance=0.05).axes
    for bars, (name, numbers) in zip(axes.containers, TABLE.items(), strict=True):
        assert bars.get_label() == name
        np.testing.assert_allclose(
            bars[0].get_ydata().astype(float), [value for value, _, _ in numbers.values()]
        )
        ends = [segment[:, 1] for segment in bars[2][0].get_segments()]
        np.testing.assert_allclose(ends, [(low, high) for _, low, high in numbers.values()])
        seconds = [1 + (n - 1) / 4 for n in numbers]
        np.testing.assert_allclose(
            bars[0].get_xdata().astype(float), seconds, rtol=0.04
        )  # dodged, a little
    at_one = [bars[0].get_xdata()[0] for bars in axes.containers]
    assert len(set(at_one)) == 3
    stars = line(axes, "paper (its own corpus)")
    assert (stars.get_xdata().tolist(), stars.get_ydata().tolist()) == ([1, 3], [0.1042, 0.2028])
    assert set(line(axes, "chance (5.0%)").get_ydata()) == {0.05}
    assert line(axes, "chance (5.0%)").get_linestyle() == ":"


def is_grey(colour):
    code = to_hex(colour)
    return code[1:3] == code[3:5] == code[5:7]


def test_accuracy_emphasises_the_first_or_the_named_systems():
    def colours(**options):
        return [
            is_grey(bars[0].get_color())
            for bars in figures.draw_accuracy(TABLE, chance=0.05, **options).axes[0].containers
        ]

    assert colours() == [False, True, True]
    assert colours(emphasised=["trained", "random codes"]) == [False, True, False]
    assert colours(emphasised=[]) == [True, True, True]


def test_accuracy_tolerates_what_cannot_be_measured():
    """No window of 37 hashes: nan from ``metrics``, null in JSON. A percentile interval may miss
    its value.
    """
    table = {"trained": {1: (0.1, 0.11, 0.2), 37: (None, float("nan"), None)}}
    figure = figures.draw_accuracy(table, chance=0.05, paper={})
    figure.draw_without_rendering()
    assert legend_of(figure) == ["trained", "chance (5.0%)"]
    assert figure.axes[0].containers[0][0].get_ydata()[0] == 0.1


def test_bits_sorts_the_shares_and_counts_the_dead():
    (axes,) = figures.draw_bits(MEANS).axes
    alive, dead = axes.lines[-2:]
    assert dead.get_ydata().tolist() == [0.0, 0.0199, 0.9801]
    np.testing.assert_array_equal(alive.get_ydata(), [0.02, *np.linspace(0.3, 0.7, 27), 0.98])
    assert dead.get_xdata().tolist() == [0, 1, 31]
    assert axes.get_title() == "How often each bit is set: 3 of 32 bits are dead"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: figures.draw_mfcc(CEPSTRA[0], title=""),
            r"cepstra must be \(frames, coeffs\).*got shape \(13,\)",
        ),
        (lambda: figures.draw_mfcc(CEPSTRA[:0], title=""), "not empty"),
        (lambda: figures.draw_mfcc(np.full((2, 2), np.nan), title=""), "finite, got 4 values"),
        (lambda: figures.draw_pca(STATES[:1], WORKS[:1]), "at least 2 segments"),
        (lambda: figures.draw_pca(STATES[:, :1], WORKS), "2 hidden units"),
        (
            lambda: figures.draw_pca(STATES, WORKS[:-1]),
            r"works must hold one label .*\(400,\), got \(399,\)",
        ),
        (lambda: figures.draw_pca(STATES, WORKS, genres=["a"]), r"genres must hold .*got \(1,\)"),
        (lambda: figures.draw_training([]), "got 0 rows"),
        (lambda: figures.draw_training([{"train_loss": 1.0}]), "each with an epoch"),
        (lambda: figures.draw_accuracy({}, chance=0.05), "at least one system"),
        (lambda: figures.draw_accuracy({"a": {}}, chance=0.05), r"got none for \['a'\]"),
        (lambda: figures.draw_accuracy(TABLE, chance=0.05, emphasised=["b"]), r"got \['b'\]"),
        (lambda: figures.draw_bits(MEANS.reshape(2, -1)), r"\(bits,\)"),
        (lambda: figures.draw_bits(MEANS + 0.1), r"in \[0, 1\]"),
        (lambda: figures.draw_bits(np.array([np.nan])), r"in \[0, 1\]"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
