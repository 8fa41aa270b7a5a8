"""Damaged files of every format: what can be decoded is used, and what is lost is told."""

import contextlib
import io
import os
import re
import struct
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from seqhash import audio, containers, libav
from seqhash.containers import flac, mpeg, ogg
from tests import damage

RATE = damage.RATE


def made(tmp_path, data, name="file"):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


def heard(path, **options):
    """(samples, flaws) of a file."""
    flaws = list[audio.Flaw]()
    return audio.read(path, sample_rate=RATE, report=flaws.append, **options), flaws


def reference(name):
    return soundfile.read(io.BytesIO(damage.whole(name)), dtype="float32")[0]


@pytest.mark.slow
def test_the_table_of_the_page_is_what_happens(tmp_path):
    pytest.importorskip("av")
    assert damage.table(tmp_path) == damage.written().rstrip("\n")


@pytest.mark.parametrize("name", damage.WRITTEN)
def test_of_a_cut_file_what_is_there_is_used_and_the_rest_told(tmp_path, name):
    path = made(tmp_path, damage.DAMAGES["cut in half"](damage.whole(name)))
    samples, flaws = heard(path)
    assert [flaw.path for flaw in flaws] == [path]
    assert flaws[0].reason.startswith("cut")
    assert flaws[0].start == pytest.approx(len(samples) / RATE, abs=0.1)
    assert 1.8 < len(samples) / RATE < 3.2
    if not name.startswith("Ogg"):  # whose header does not say how long it is
        assert len(samples) / RATE + flaws[0].seconds == pytest.approx(6, abs=0.12)
    # The encoder's delay, which the cut header no longer tells, is no matter of this test.
    same = samples[:30_000] - reference(name)[:30_000]
    assert np.abs(same).max() < 1e-6
    with pytest.raises(audio.AudioError, match=r"file: cut.* at \d"):
        heard(path, strict=True)


@pytest.mark.parametrize("name", damage.WRITTEN)
def test_no_cut_is_unseen_and_none_is_worse_than_an_error(tmp_path, name):
    data = damage.whole(name)
    for count in (1, 20, 50, len(data) // 50, len(data) // 9, len(data) - len(data) // 40):
        seconds, flaws, refused = damage.outcome(made(tmp_path, data[:count]))
        assert refused or flaws, count
        assert seconds < 5.95


@pytest.mark.parametrize("name", damage.WRITTEN)
@pytest.mark.parametrize(
    "how", ["counts half", "counts twice", "length open", "ID3 in front", "ID3v1 behind"]
)
def test_a_header_that_is_wrong_costs_no_sound(tmp_path, name, how):
    if (data := damage.DAMAGES[how](damage.whole(name))) is None:
        pytest.skip("there is no count in it")
    samples, flaws = heard(made(tmp_path, data))
    expected = reference(name)
    if name == "MP3" and how == "length open":
        expected = expected[:0]  # without the header, the encoder's delay is sound
    assert np.abs(samples[: len(expected)] - expected).max(initial=0) < 1e-6
    assert len(samples) >= damage.SECONDS * RATE
    told = how.startswith("counts") and name != "CAF, ALAC"  # of which the packets are counted
    assert bool(flaws) == told, flaws


@pytest.mark.parametrize("name", damage.WRITTEN)
def test_files_that_are_joined_are_read_to_the_last(tmp_path, name):
    samples, _ = heard(made(tmp_path, 2 * damage.whole(name)))
    assert len(samples) / RATE == pytest.approx(12, abs=0.15)
    assert np.abs(samples[:90_000] - reference(name)[:90_000]).max() < 1e-6


def test_a_joined_voc_of_8_bits_is_read_to_the_last(tmp_path):
    """libsndfile stops at the block that ends the first."""
    file = io.BytesIO()
    soundfile.write(file, damage.sound(6.0, 8000), 8000, format="VOC", subtype="PCM_U8")
    assert len(heard(made(tmp_path, 3 * file.getvalue()))[0]) == 18 * RATE


# FLAC.


def flac_file(seconds=30.0):
    file, samples = io.BytesIO(), damage.sound(seconds)
    soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue(), soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]


def frames_of(tmp_path, data):
    with open(made(tmp_path, data, "frames"), "rb") as file:
        return list(flac.frames(containers.Source(file), 0, 42, len(data)))


def test_frames_of_flac_are_found_and_their_checksums_right(tmp_path):
    data, samples = flac_file(6.0)
    frames = frames_of(tmp_path, data)
    assert [frame.first for frame in frames] == list(range(0, len(samples), frames[0].samples))
    assert frames[-1].first + frames[-1].samples == len(samples)
    ends = [*(frame.begin for frame in frames[1:]), len(data)]
    for frame, end in zip(frames, ends, strict=True):
        body = bytearray(data[frame.begin : end])
        assert flac.is_whole(bytes(body))
        body[len(body) // 2] ^= 1
        assert not flac.is_whole(bytes(body))


def test_bytes_that_look_like_a_header_of_flac_cost_no_sound(tmp_path):
    """Noise is stored as it is, so samples can spell the header of a frame far behind."""
    header = bytes([0xFF, 0xF8, 0xC9, 0x08, 0x7F])  # 4,096 samples, frame 127
    header += bytes([flac._crc8(header)])
    noise = np.random.default_rng(0).integers(-(2**15), 2**15, 5 * 4_096 + 100).astype("<i2")
    noise[4 * 4_096 + 1_000 :][:3] = np.frombuffer(header, ">i2")  # in the last whole frame
    file = io.BytesIO()
    soundfile.write(file, noise, RATE, format="FLAC", subtype="PCM_16")
    assert header in file.getvalue()
    frames = frames_of(tmp_path, file.getvalue())
    assert frames[-1].first + frames[-1].samples == len(noise)
    samples, flaws = heard(made(tmp_path, file.getvalue(), "noise.flac"))
    assert (len(samples), flaws) == (len(noise), [])


@pytest.mark.parametrize("bad", [[0], [40], [40, 41, 70], [117]])
@pytest.mark.parametrize("how", ["a bit", "the header"])
def test_a_bad_frame_of_flac_costs_itself_alone(tmp_path, bad, how):
    data, expected = flac_file()
    frames = frames_of(tmp_path, data)
    damaged = bytearray(data)
    for i in bad:
        begin = frames[i].begin
        if how == "a bit":
            damaged[begin + 1000 if i < 117 else begin + 100] ^= 4
        else:
            damaged[begin : begin + 4] = bytes(4)
    samples, flaws = heard(made(tmp_path, bytes(damaged)))
    # With the header of a frame, the one before it, which then has no end, is lost as well; not so
    # at the end, where nothing more is looked for.
    lost = set(bad) | ({i - 1 for i in bad if 0 < i < 117} if how == "the header" else set())
    size = frames[0].samples
    kept = [expected[i * size : (i + 1) * size] for i in range(len(frames)) if i not in lost]
    np.testing.assert_array_equal(samples, np.concatenate(kept))
    seconds = sum(flaw.seconds for flaw in flaws)
    assert seconds == pytest.approx((len(expected) - len(samples)) / RATE)
    assert flaws[0].start == pytest.approx(min(lost) * size / RATE)


# MPEG audio.


def mp3(seconds=6.0, rate=RATE, **options):
    file = io.BytesIO()
    samples = damage.sound(seconds, rate)
    loud_first = samples * np.linspace(1, 0.01, len(samples)) ** 2
    soundfile.write(file, loud_first, rate, "MPEG_LAYER_III", format="MP3", **options)
    return file.getvalue()


def without_header(data):
    """Less its first frame, which has the Xing/Info header and no sound."""
    assert re.search(rb"Xing|Info", data[:60])
    return data[data.index(data[:2], 4) :]


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_without_a_header_is_read_whole(tmp_path, mode):
    data = mp3(bitrate_mode=mode)
    expected = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    samples, flaws = heard(made(tmp_path, without_header(data)))
    assert flaws == []
    delay = int(np.argmax(np.correlate(samples[:9000], expected[:6000])))
    assert 0 < delay < 2400  # the encoder's, which nothing cuts without the header
    count = len(expected) - 3000
    assert np.abs(samples[delay : delay + count] - expected[:count]).max() < 1e-3


@pytest.mark.parametrize("field", ["no count", "a count of 0"])
def test_an_mp3_whose_header_does_not_count_is_read_whole(tmp_path, field):
    data = bytearray(mp3(bitrate_mode="VARIABLE"))
    expected = soundfile.read(io.BytesIO(bytes(data)), dtype="float32")[0]
    at = max(data.find(b"Xing"), data.find(b"Info"))
    if field == "no count":
        data[at + 7] &= 0xFE
    else:
        data[at + 8 : at + 12] = bytes(4)
    samples, flaws = heard(made(tmp_path, bytes(data)))
    assert flaws == []
    assert len(expected) <= len(samples) < len(expected) + 4000


def test_joined_mp3s_of_other_rates_are_read_each_at_its_own(tmp_path):
    data = mp3() + mp3(4.0, 22_050) + b"TAG" + bytes(125) + mp3(3.0, 44_100)
    samples, flaws = heard(made(tmp_path, data))
    assert flaws == []
    assert len(samples) / RATE == pytest.approx(13, abs=0.2)
    np.testing.assert_array_equal(samples[:90_000], heard(made(tmp_path, mp3()))[0][:90_000])


def test_a_bad_frame_of_an_mp3_costs_itself_alone(tmp_path):
    data = bytearray(damage.whole("MP3"))
    place = data.index(data[:2], len(data) // 2)
    data[place : place + 4] = bytes(4)
    samples, flaws = heard(made(tmp_path, bytes(data)))
    assert len(samples) == len(reference("MP3")) - 576
    assert [(flaw.reason, round(flaw.seconds, 3)) for flaw in flaws] == [
        ("bytes that are no MPEG frames", 0.036)
    ]
    assert flaws[0].start == pytest.approx(3.0, abs=0.3)


def test_the_loss_of_a_joined_mp3_is_told_where_it_is(tmp_path):
    data = damage.whole("MP3")
    _, flaws = heard(made(tmp_path, data[: len(data) // 2] + data))
    assert sum(flaw.seconds for flaw in flaws) == pytest.approx(3.1, abs=0.2)
    assert {round(flaw.start) for flaw in flaws} == {3}


def test_mpeg_frames_by_the_standard():
    """ISO 11172-3: 144 * 128000 / 44100 = 417.96 bytes of layer III; of layer II as many, of layer
    I 4 * floor(12 * 128000 / 44100) = 136; 13818-3: 72 * 64000 / 22050 = 208.98. The padding bit
    adds one slot, which has four bytes in layer I.
    """
    for header, expected in {
        b"\xff\xfb\x90\x64": (417, 1152, 36, 44_100, 3),
        b"\xff\xfb\x92\xc4": (418, 1152, 21, 44_100, 3),
        b"\xff\xf3\x80\x64": (208, 576, 21, 22_050, 3),
        b"\xff\xe3\x80\xc4": (417, 576, 13, 11_025, 3),
        b"\xff\xfd\x80\x64": (417, 1152, 36, 44_100, 2),
        b"\xff\xff\x40\x64": (136, 384, 36, 44_100, 1),
        b"\xff\xff\x42\x64": (140, 384, 36, 44_100, 1),
    }.items():
        assert mpeg.frame_of(header)[:5] == expected
    for bad in ("fffbf064", "fffb0064", "fffb9c64", "fff99064", "ffeb9064", "52494646", "ff"):
        assert mpeg.frame_of(bytes.fromhex(bad)) is None


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("W64", 56, b"\xff" * 8),  # a length beyond any file
        ("NIST", 8, b" x 1024 "),
        ("CAF", 4, b"\0\1\0\0desc\x7f" + b"\xff" * 7),
        ("VOC", 20, b"\xff\xff"),
        ("FLAC", 18, bytes(30)),
        ("Ogg Vorbis", 26, b"\xff" * 200),
        ("MP3", 0, b"\xff" * 5000),
        ("WAV", 16, b"\xff" * 24),
        ("RF64", 12, b"\xff" * 40),
    ],
)
def test_a_damaged_header_loses_nothing_without_a_word(tmp_path, name, at, value):
    data = damage.whole(name)
    path = made(tmp_path, data[:at] + value + data[at + len(value) :])
    seconds, flaws, refused = damage.outcome(path)
    assert flaws or refused or seconds == pytest.approx(damage.SECONDS, abs=0.15)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("x", b"OggS"),
        ("x", b"ID3\3" + bytes(6)),
        ("x", b"\0\0\0\x08ftyp"),
        ("x.mp3", b"\xff\xfb\x90d"),
    ],
)
def test_bytes_that_repeat_are_refused_soon(tmp_path, name, unit):
    begin = time.process_time()
    with pytest.raises(audio.AudioError):
        heard(made(tmp_path, unit * (2_000_000 // len(unit)), name))
    assert time.process_time() - begin < 3  # half a second; minutes, where each is looked at alone


def test_frames_of_more_channels_than_pyav_holds_are_left_out():
    av = pytest.importorskip("av")
    many = SimpleNamespace(format=SimpleNamespace(is_planar=True), layout=SimpleNamespace())
    many.layout.nb_channels = 42  # as a damaged AAC said; reading it ended the process
    packet = SimpleNamespace(decode=lambda: [many], is_corrupt=False, size=9)
    container = SimpleNamespace(demux=lambda stream: iter([packet]))
    with pytest.raises(libav.LibavError, match="42 channels"):
        list(libav._decoded(av, container, None, lambda *_: None))


def test_tags_that_are_no_unicode_are_told_without_surrogates():
    """By any PyAV: the 19th took the option away by which they were replaced."""
    pytest.importorskip("av")
    title = "caf\xe9\0".encode("latin-1") + b"\0"
    parts = {
        b"fmt ": struct.pack("<HHIIHH", 1, 1, 8_000, 16_000, 2, 16),
        b"LIST": b"INFOINAM" + struct.pack("<I", len(title)) + title,
        b"data": bytes(16_000),
    }
    body = b"".join(name + struct.pack("<I", len(part)) + part for name, part in parts.items())
    file = io.BytesIO(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
    said: dict[str, str] = {}
    blocks = list(libav.decoded(file, lambda *_: None, said))
    assert sum(len(samples) for _, samples in blocks) == 8_000
    assert said["title"] == "caf\ufffd"


@pytest.mark.slow
def test_mutations_are_errors_or_flaws(tmp_path):
    pytest.importorskip("av")
    for seed in range(2000):
        seconds, flaws, refused = damage.outcome(made(tmp_path, damage.mutated(seed)))
        assert (seconds > 0) != bool(refused), seed
        assert seconds < 10 * damage.SECONDS, seed
        assert all(flaw.reason for flaw in flaws), seed


def test_random_bytes_are_no_mpeg_audio(tmp_path):
    path = made(tmp_path, np.random.default_rng(5).bytes(200_000), "x.mp3")
    with pytest.raises(audio.AudioError, match="no MPEG frame"):
        heard(path)


# Ogg.


def test_a_chained_ogg_is_its_links_one_after_the_other(tmp_path):
    links = ("Ogg Vorbis", "Ogg Opus", "Ogg Vorbis")
    samples, flaws = heard(made(tmp_path, b"".join(map(damage.whole, links))))
    assert flaws == []
    np.testing.assert_array_equal(samples, np.concatenate(list(map(reference, links))))


@pytest.mark.parametrize("name", ["Ogg Vorbis", "Ogg Opus"])
def test_a_bad_page_of_ogg_is_told_with_its_place(tmp_path, name):
    data = bytearray(damage.whole(name))
    pages = [found.start() for found in re.finditer(b"OggS", data)]
    granules = [int.from_bytes(data[page + 6 : page + 14], "little") for page in pages]
    rate = RATE if name == "Ogg Vorbis" else 48_000
    data[pages[4] + 200] ^= 1
    samples, flaws = heard(made(tmp_path, bytes(data)))
    assert [flaw.reason for flaw in flaws] == ["damaged Ogg pages"]
    assert flaws[0].start == granules[3] / rate
    lost = (len(reference(name)) - len(samples)) / RATE
    assert flaws[0].seconds == pytest.approx(lost, abs=0.3)
    assert lost < (granules[4] - granules[3]) / rate + 0.3
    expected = reference(name)  # before and behind it the sound is the same
    begin = int(flaws[0].start * RATE)
    np.testing.assert_array_equal(samples[: begin - 2000], expected[: begin - 2000])
    assert np.abs(samples[-8000:] - expected[-8000:]).max() < 1e-4


@pytest.mark.parametrize(("name", "which", "more"), [("Opus", 3, 278), ("Vorbis", -1, 128)])
def test_granules_that_are_a_little_off_cost_nothing(tmp_path, name, which, more):
    """As FFmpeg writes them: of Opus after time stamps that jitter, of Vorbis at the end."""
    name = f"Ogg {name}"
    data = bytearray(damage.whole(name))
    page = [found.start() for found in re.finditer(b"OggS", data)][which]
    granule = int.from_bytes(data[page + 6 : page + 14], "little") + more
    data[page + 6 : page + 14] = granule.to_bytes(8, "little")
    end = page + 27 + data[page + 26] + sum(data[page + 27 : page + 27 + data[page + 26]])
    data[page + 22 : page + 26] = bytes(4)
    data[page + 22 : page + 26] = ogg._crc(bytes(data[page:end])).to_bytes(4, "little")
    samples, flaws = heard(made(tmp_path, bytes(data)))
    assert flaws == []
    np.testing.assert_array_equal(samples, reference(name))


# What PyAV reads.


def test_a_stream_is_heard_as_it_comes(tmp_path):
    """Not after 32 KiB, which are 16 s of some streams."""
    pytest.importorskip("av")
    data, read = damage.whole("Ogg Opus"), []

    class Live(io.RawIOBase):
        def readable(self):
            return True

        def read(self, count=-1):
            part = data[sum(read) :][:count]
            read.append(len(part))
            return part

    first = next(libav.decoded(Live(), lambda *_: None))
    assert len(first[1])
    assert sum(read) < len(data) / 2


@pytest.mark.parametrize("name", ["M4A, AAC", "Ogg FLAC", "WMA", "AC-3"])
def test_what_libsndfile_does_not_read_is_read_by_pyav(tmp_path, name):
    pytest.importorskip("av")
    samples, flaws = heard(made(tmp_path, damage.whole(name)))
    assert flaws == []
    assert len(samples) / RATE == pytest.approx(6, abs=0.13)
    expected = damage.sound()
    likeness = np.correlate(samples[8000:60_000], expected[12_000:56_000])
    assert likeness.max() > 0.7 * (expected[12_000:56_000] ** 2).sum()


@pytest.mark.parametrize("name", ["WAV", "FLAC", "MP3", "Ogg Vorbis", "M4A, AAC"])
def test_a_disk_that_fails_is_neither_damage_nor_an_end(tmp_path, monkeypatch, name):
    """A read that is refused, each of the file in turn, is an error, and one that may pass."""
    pytest.importorskip("av")
    path, real, reads, refused = made(tmp_path, damage.whole(name)), os.pread, [0], [0]

    def pread(*arguments):
        reads[0] += 1
        if reads[0] == refused[0]:
            raise OSError(5, "Input/output error")
        return real(*arguments)

    monkeypatch.setattr(os, "pread", pread)
    for read in (heard, audio.tags):
        reads[0] = refused[0] = 0
        read(path)
        for refused[0] in np.unique(np.linspace(1, reads[0], 8).astype(int)):
            reads[0] = 0
            with pytest.raises(audio.PassingError, match=r"cannot be read .Input/output error"):
                read(path)


def test_tags_of_what_pyav_reads(tmp_path):
    pytest.importorskip("av")
    said = {"title": "日本 €", "artist": "A", "album": "B", "comment": "C"}
    path = made(tmp_path, damage.coded("ipod", "aac", RATE, **said))
    assert audio.tags(path) == {name: said[name] for name in ("title", "artist", "album")}
    assert audio.tags(made(tmp_path, b"no audio")) == {}


def test_without_pyav_one_line_says_what_to_install(tmp_path, monkeypatch):
    path = made(tmp_path, b"\0\0\0\x20ftypM4A " + bytes(100), "x.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(audio.AudioError) as caught:
        heard(path)
    assert caught.value.reason.startswith("MP4 that libsndfile does not read")
    assert caught.value.reason.endswith('pip install "seqhash[audio]"')
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize(
    "text", ["#EXTM3U\nsong.wav\n", "ffconcat version 1.0\nfile song.wav\n", "v=0\no=- 0 0\n"]
)
def test_no_list_leads_to_other_files(tmp_path, text):
    made(tmp_path, damage.whole("WAV"), "song.wav")
    path = made(tmp_path, text.encode(), "list.m3u8")
    with pytest.raises(audio.AudioError, match="not audio"):
        heard(path)
    pytest.importorskip("av")
    with open(path, "rb") as file, pytest.raises(libav.LibavError):
        list(libav.decoded(file, lambda *_: None))


# Streams.


@pytest.mark.parametrize("with_pyav", [True, False])
@pytest.mark.parametrize("name", ["WAV", "AIFF", "FLAC", "Ogg Vorbis", "MP3"])
def test_a_header_on_a_stream_is_understood(monkeypatch, name, with_pyav):
    if with_pyav:
        pytest.importorskip("av")
    monkeypatch.setattr(libav, "is_installed", lambda: with_pyav)
    parts = list(streamed(damage.whole(name), block_seconds=1))
    assert {len(part) for part in parts[:-1]} == {RATE}
    samples, expected = np.concatenate(parts), reference(name)
    if name == "MP3" and with_pyav:  # a stream's delay is sound
        assert abs(len(samples) - len(expected)) < 2400
    else:
        assert np.abs(samples - expected).max() < 1e-4


def streamed(data, report=audio.warn, **options):
    class Pipe(io.RawIOBase):
        """Cannot be sought, and is not read ahead by much."""

        def __init__(self):
            self.file = io.BytesIO(data)

        def read(self, count=-1):
            return self.file.read(count)

    return audio.stream_blocks(
        Pipe(), encoding="s16le", rate=RATE, sample_rate=RATE, report=report, **options
    )


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_samples_of_a_wav_stream_come_as_they_arrive(subtype):
    file, samples = io.BytesIO(), np.stack([damage.sound(2.0), -damage.sound(2.0)], axis=1)
    soundfile.write(file, samples, RATE, format="WAV", subtype=subtype)
    expected = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]
    data = file.getvalue() + b"LIST\x04\0\0\0abcd"
    for channel, wanted in (("2", expected[:, 1]), ("first", expected[:, 0])):
        found = np.concatenate(list(streamed(data, channel=channel)))
        np.testing.assert_array_equal(found, wanted)


def test_what_follows_the_samples_of_a_wav_stream_is_passed_over_or_joined():
    wav, small = damage.whole("WAV"), io.BytesIO()
    soundfile.write(small, damage.sound(0.5)[:7999], RATE, format="WAV", subtype="PCM_U8")
    tag, chunk = b"TAG" + bytes(125), b"LIST\x05\0\0\0abcdef"
    ape = b"APETAGEX" + (2000).to_bytes(4, "little") + bytes(20)
    for data, count in (
        (wav + tag, 96_000),
        (wav + chunk + ape, 96_000),
        (wav + chunk + wav, 192_000),
        (small.getvalue() + wav + small.getvalue(), 111_998),
        (wav + damage.whole("AIFF"), 192_000),
        (damage.whole("AIFF") + wav, 192_000),
    ):
        assert sum(map(len, streamed(data))) == count


def test_lengths_that_pipes_leave_are_no_cuts(tmp_path):
    """arecord's, SoX's, FFmpeg's; the file is as long as it is."""
    for name, field, lengths in (
        ("WAV", b"data", (0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)),
        ("AIFF", b"SSND", (0x7F000008, 0x7FFFFFFF, 0xFFFFFFFF)),
        ("AU", b".snd\0\0\0\x18", (0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)),
    ):
        data, order = damage.whole(name), "little" if name == "WAV" else "big"
        at = data.index(field) + len(field)
        for length in lengths:
            left_open = data[:at] + length.to_bytes(4, order) + data[at + 4 :]
            (tmp_path / "file").write_bytes(left_open)
            assert len(audio.read(tmp_path / "file", sample_rate=RATE)) == 96_000
            assert sum(map(len, streamed(left_open))) == 96_000


def test_raw_samples_have_one_channel():
    with pytest.raises(audio.AudioError, match="channel 2 is not there"):
        streamed(bytes(64_000), channel="2")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*damage.names()])
def test_a_stream_is_read_as_a_file_is(tmp_path, name):
    pytest.importorskip("av")
    for how, damaged in damage.DAMAGES.items():
        if (data := damaged(damage.whole(name))) is None:
            continue
        (tmp_path / "file").write_bytes(data)
        seconds, flaws, refused = damage.outcome(tmp_path / "file")
        told, found = [], 0.0
        with contextlib.suppress(audio.AudioError):
            found = sum(map(len, streamed(data, told.append))) / RATE
        assert found == pytest.approx(seconds, abs=0.1), how
        if how == "200 bytes zeroed":  # the end of what is sent as a stream is no cut
            assert bool(told) == bool(flaws or refused), how


@pytest.mark.parametrize("name", ["MP3", "Matroska"])
def test_a_tag_before_a_stream_is_passed_over_however_long_it_is(name):
    pytest.importorskip("av")
    for length in (10, 300_000):
        size = bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0))
        data = b"ID3\x03\0\0" + size + bytes(length) + damage.whole(name)
        assert abs(sum(map(len, streamed(data))) - 96_000) < 2400


@pytest.mark.parametrize("name", ["MP3", "MP2", "AAC", "MPEG-TS"])
def test_a_stream_that_is_joined_in_its_middle_is_heard(tmp_path, name):
    """As a radio's is."""
    pytest.importorskip("av")
    data = damage.whole(name)[1000:]
    (tmp_path / "file").write_bytes(data)
    with pytest.warns(audio.FlawWarning, match="begins within a frame"):
        found = audio.read(tmp_path / "file", sample_rate=RATE)
    for samples in (found, np.concatenate(list(streamed(data)))):
        assert 5.8 * RATE < len(samples) < 6.1 * RATE
        assert 0.2 < np.abs(samples).max() < 0.6


def test_raw_samples_are_no_stream_that_is_joined_in_its_middle():
    rng = np.random.default_rng(0)
    heads = [rng.bytes(8192) for _ in range(50)]
    for size in (1, 2, 100, 5000):
        heads += [rng.integers(-size, size + 1, 4096).astype("<i2").tobytes() for _ in range(20)]
    assert not any(containers.joined_at(head) is not None for head in heads)


def test_the_length_of_a_wav_stream_is_checked():
    data, flaws = damage.whole("WAV"), list[audio.Flaw]()
    for how in ("cut in half", "counts half", "length open"):
        list(streamed(damage.DAMAGES[how](data), flaws.append))
    assert [flaw.reason.split()[0] for flaw in flaws] == ["cut:", "its"]
    assert flaws[0].seconds == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("begin", [b"", b"\xff\xf1\x50\x80", b"\x0b\x77", b"\xff\xfb\x90\x64"])
def test_raw_samples_have_no_header(begin):
    raw = begin + damage.whole("WAV")[44 + len(begin) :]
    assert not containers.kind_of(raw[: containers.LONGEST_MAGIC])
    samples = np.concatenate(list(streamed(raw)))
    np.testing.assert_array_equal(samples[2:], reference("WAV")[2:])


@pytest.mark.parametrize("name", damage.CODED)
def test_kinds_are_known_by_their_first_bytes(name):
    pytest.importorskip("av")
    assert containers.kind_of(damage.whole(name)[: containers.LONGEST_MAGIC])
