"""Files of every format, damaged in every way, and what ``audio.read`` makes of them: the table of
docs/files.md.

    python -m tests.damage        # writes it anew
"""

import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from seqhash import audio, tables

RATE = 16_000
SECONDS = 6.0
PAGE = Path(__file__).parents[1] / "docs" / "files.md"
BEGIN, END = "<!-- table: python -m tests.damage -->\n", "<!-- end of the table -->\n"

WRITTEN = {  # by libsndfile: name -> format and subtype
    "WAV": ("WAV", "PCM_16"),
    "WAV, ADPCM": ("WAV", "MS_ADPCM"),
    "RF64": ("RF64", "PCM_16"),
    "W64": ("W64", "PCM_16"),
    "AIFF": ("AIFF", "PCM_16"),
    "AU": ("AU", "PCM_16"),
    "CAF": ("CAF", "PCM_16"),
    "CAF, ALAC": ("CAF", "ALAC_16"),
    "VOC": ("VOC", "PCM_16"),
    "NIST": ("NIST", "ULAW"),
    "FLAC": ("FLAC", "PCM_16"),
    "Ogg Vorbis": ("OGG", "VORBIS"),
    "Ogg Opus": ("OGG", "OPUS"),
    "MP3": ("MP3", "MPEG_LAYER_III"),
}
CODED = {  # by PyAV: name -> container, codec, Hz
    "MP2": ("mp2", "mp2", 16_000),
    "MP3 in WAV": ("wav", "libmp3lame", 16_000),
    "Ogg FLAC": ("ogg", "flac", 16_000),
    "M4A, AAC": ("ipod", "aac", 16_000),
    "M4A, ALAC": ("ipod", "alac", 16_000),
    "AAC": ("adts", "aac", 16_000),
    "WMA": ("asf", "wmav2", 16_000),
    "WebM, Opus": ("webm", "libopus", 48_000),
    "AC-3": ("ac3", "ac3", 48_000),
    "WavPack": ("wv", "wavpack", 16_000),
    "TTA": ("tta", "tta", 16_000),
    "Matroska": ("matroska", "aac", 16_000),
    "AVI": ("avi", "libmp3lame", 16_000),
    "MPEG-TS": ("mpegts", "aac", 16_000),
}


def sound(seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """Tones that come and go over faint noise: float32 (samples,)."""
    times = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * (f + 40 * times) * times) for f in (220, 331, 497)) / 8
    noise = np.random.default_rng(0).standard_normal(len(times)) / 50
    return (tones * (0.6 + 0.4 * np.sin(times)) + noise).astype(np.float32)


@functools.cache
def whole(name: str) -> bytes:
    """A file of a format, as it should be."""
    if name in WRITTEN:
        form, subtype = WRITTEN[name]
        file = io.BytesIO()
        soundfile.write(file, sound(), RATE, format=form, subtype=subtype)
        return file.getvalue()
    return coded(*CODED[name])


def coded(
    container: str, codec: str, rate: int, samples: np.ndarray | None = None, **tags: str
) -> bytes:
    """A file that PyAV writes: of ``sound``, or of other samples."""
    import av

    file, samples = io.BytesIO(), (sound(rate=rate) if samples is None else samples)[None]
    with av.open(file, "w", format=container) as out:
        out.metadata.update(tags)
        stream = out.add_stream(codec, rate=rate, layout="mono")
        if codec == "wmav2":
            stream.bit_rate = 64_000
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        for low in range(0, samples.shape[1], 1024):
            part = np.ascontiguousarray(samples[:, low : low + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, low
            for ready in resampler.resample(frame):
                out.mux(stream.encode(ready))
        out.mux(stream.encode(None))
    return file.getvalue()


def _hole(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(200) + data[middle + 200 :]


def counting(share: float) -> Callable[[bytes], bytes | None]:
    """The header says that there is so many times as much; 0, it leaves that open."""

    def damage(data: bytes) -> bytes | None:
        for name, width, order, head in (
            (b"data", 4, "little", b"RIFF"),
            (b"SSND", 4, "big", b"FORM"),
        ):
            if data.startswith(head) and (at := data.find(name) + 4) > 3:
                count = int(int.from_bytes(data[at : at + width], order) * share)
                return data[:at] + count.to_bytes(width, order) + data[at + width :]
        if data.startswith(b"RF64"):
            return _scaled(data, data.find(b"ds64") + 16, 8, "little", share)
        if data.startswith(b"riff"):
            return _scaled(data, data.find(b"data") + 16, 8, "little", share)
        if data.startswith(b"caff"):
            at = data.find(b"data") + 4
            if not share:
                return data[:at] + b"\xff" * 8 + data[at + 8 :]
            return _scaled(data, at, 8, "big", share)
        if data.startswith((b".snd", b"dns.")):
            order = "big" if data.startswith(b".snd") else "little"
            return _scaled(data, 8, 4, order, share)
        if data.startswith(b"fLaC"):
            total = int.from_bytes(data[21:26], "big")
            count = int((total & 0xFFFFFFFFF) * share)
            return data[:21] + (total >> 36 << 36 | count).to_bytes(5, "big") + data[26:]
        if (at := max(data.find(b"Info"), data.find(b"Xing"))) > 0 and data[0] in (0xFF, 0x49):
            if not share:
                return data[:at] + bytes(16) + data[at + 16 :]
            return _scaled(data, at + 8, 4, "big", share)
        return None

    return damage


def _scaled(data: bytes, at: int, width: int, order: Any, share: float) -> bytes:
    count = int(int.from_bytes(data[at : at + width], order) * share)
    return data[:at] + count.to_bytes(width, order) + data[at + width :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "whole": lambda data: data,
    "cut in half": lambda data: data[: len(data) // 2 + 7],
    "200 bytes zeroed": _hole,
    "counts half": counting(0.5),
    "counts twice": counting(2.0),
    "length open": counting(0.0),
    "ID3 in front": lambda data: b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + data,
    "ID3v1 behind": lambda data: data + b"TAG" + bytes(125),
    "joined twice": lambda data: data + data,
}


def mutated(seed: int) -> bytes:
    """A file of some format, damaged at a few random places."""
    rng, every = np.random.default_rng(seed), list(names())
    data = bytearray(whole(every[seed % len(every)]))
    for _ in range(rng.integers(1, 6)):
        end = len(data) if rng.random() < 0.5 else min(len(data), 120)  # where headers are
        at, length = int(rng.integers(end)), int(rng.integers(1, 200))
        match rng.integers(8):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + length] = rng.bytes(length)
            case 2:
                data[at : at + 4] = b"\xff" * 4
            case 3:
                data[at : at + 4] = bytes(4)
            case 4:
                del data[at : at + length]
            case 5:
                data[at:at] = rng.bytes(length)
            case 6:
                del data[at + 1 :]
            case 7:
                data += data[at:]
        data = data or bytearray(b"x")
    return bytes(data)


def outcome(path: Path) -> tuple[float, list[audio.Flaw], str]:
    """Seconds that are used of a file, its flaws, and why it is refused."""
    flaws = list[audio.Flaw]()
    try:
        samples = audio.read(path, sample_rate=RATE, report=flaws.append)
    except audio.AudioError as error:
        return 0.0, flaws, error.reason
    return len(samples) / RATE, flaws, ""


def cell(name: str, damage: str, folder: Path) -> str:
    """What happens, in words."""
    data = DAMAGES[damage](whole(name))
    if data is None:
        return ""
    path = folder / "file"
    path.write_bytes(data)
    seconds, flaws, refused = outcome(path)
    if refused:
        return "refused"
    expected = 2 * SECONDS if damage == "joined twice" else SECONDS
    used = "all" if seconds > expected - 0.15 else f"{seconds:.1f} s"
    return f"{used}, told" if flaws else used


def table(folder: Path) -> str:
    """Markdown: a format a row, a damage a column."""
    rows = [[name, *(cell(name, damage, folder) for damage in DAMAGES)] for name in names()]
    return tables.markdown([[f"{SECONDS:g} s of ...", *DAMAGES], *rows])


def names() -> Iterator[str]:
    yield from WRITTEN
    yield from CODED


def written() -> str:
    """The table that the page has."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    import tempfile

    before, _, rest = PAGE.read_text().partition(BEGIN)
    with tempfile.TemporaryDirectory() as folder:
        made = table(Path(folder))
    PAGE.write_text(before + BEGIN + made + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
