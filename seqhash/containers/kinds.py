"""What a file is, by its first bytes."""

import re

from seqhash.containers import mpeg

_KINDS = (
    (rb"RIFF....WAVE|RIFX....WAVE|RF64....WAVE", "WAV"),
    (rb"FORM....(AIF[FC]|8SVX|16SV)", "AIFF"),
    (rb"riff\x2e\x91\xcf\x11", "W64"),
    (rb"caff\0", "CAF"),
    (rb"\.snd|dns\.", "AU"),
    (rb"Creative Voice File\x1a", "VOC"),
    (rb"NIST_1A\n", "NIST"),
    (rb"fLaC", "FLAC"),
    (rb"OggS", "Ogg"),
    (rb"....(ftyp|moov|mdat|wide|free|skip|pnot)", "MP4"),
    (rb"\x1aE\xdf\xa3", "Matroska or WebM"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"),
    (rb"ADIF", "AAC"),
    (rb"RIFF....AVI ", "AVI"),
    (rb"FLV\x01", "FLV"),
    (rb"#!AMR", "AMR"),
    (rb"MAC ", "Monkey's Audio"),
    (rb"wvpk", "WavPack"),
    (rb"TTA[12]", "TTA"),
    (rb"MPCK|MP\+", "Musepack"),
    (rb"DSD |FRM8", "DSD"),
    (rb"\.RMF", "RealAudio"),
    (rb"tBaK", "TAK"),
    (rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80", "DTS"),
    (rb"\x47.{187}\x47.{187}\x47", "MPEG transport stream"),
    (rb"\0\0\x01\xba", "MPEG program stream"),
    (rb"....\xf8\x72\x6f[\xba\xbb]", "TrueHD"),
    (rb"RIFF....QLCM|ea3\x03|ajkg|NutM|nut/multimedia|\x06\x0e\x2b\x34", "rare sound or film"),
)
LONGEST_MAGIC = 1 << 13  # bytes that tell a kind


def kind_of(head: bytes) -> str:
    """What a file is that begins so, tags left aside; empty where that is not known."""
    for pattern, name in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return name
    if mpeg.in_a_row(lambda p, n: head[p : p + n], 0, len(head)):
        return "MPEG audio"
    # Their sync words are so short that raw samples begin so now and then: one frame is not enough.
    if _adts(head):
        return "AAC"
    return "AC-3" if any(_ac3(head, magic) for magic in (b"\x0b\x77", b"\x77\x0b")) else ""


def joined_at(head: bytes) -> int | None:
    """Where frames begin of a stream that is joined in its middle, as a radio's is; None where not
    as many are in a row as are no accident.
    """

    def read(position: int, count: int) -> bytes:
        return head[position : position + count]

    for match in re.finditer(rb"(?=\xff[\xe2-\xff]|\x47)", head):
        at = match.start()
        mpeg_audio = mpeg.in_a_row(read, at, 1 << 62)
        if mpeg_audio or _adts(head[at:], frames=4, open_end=False) or _packets(head, at):
            return at
    return None


def _packets(head: bytes, at: int) -> bool:
    """Whether eight packets of an MPEG transport stream are there."""
    return head[at : at + 8 * 188 : 188] == b"\x47" * 8


def _adts(head: bytes, *, frames: int = 3, open_end: bool = True) -> bool:
    position = 0
    for _ in range(frames):
        frame = head[position : position + 6]
        if len(frame) < 6 and position:
            return open_end
        if len(frame) < 6 or frame[0] != 0xFF or frame[1] & 0xF6 != 0xF0:
            return False
        length = (frame[3] & 3) << 11 | frame[4] << 3 | frame[5] >> 5
        if length < 7:
            return False
        position += length
    return True


def _ac3(head: bytes, magic: bytes) -> bool:
    """Whether the sync word comes again at equal distances, to a word."""
    if not head.startswith(magic):
        return False
    length = head.find(magic, 64)
    while 0 < length <= 4096:
        if any(head[2 * length + i : 2 * length + i + 2] == magic for i in (-2, 0, 2)):
            return True
        length = head.find(magic, length + 1)
    return False
