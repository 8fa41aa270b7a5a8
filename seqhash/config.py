"""Every knob of the system, with its unit and the paper's value, as frozen (hashable) dataclasses.

A config is data: paths and callables are arguments, never fields. ``override`` changes named fields
and is what both notebooks and the scripts' ``--set`` use; an unknown name is a ValueError that
lists the valid ones.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

Normalisation = Literal["corpus", "recording", "segment", "none"]
DecoderInput = Literal["nothing", "own", "truth"]
DecoderOrder = Literal["forward", "reversed"]
Handover = Literal["hidden", "hidden_and_cell"]
Readout = Literal["linear", "mlp", "slice"]
Dtype = Literal["float32", "bfloat16"]
Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine"]
Threshold = Literal["zero", "median"]
FrontEnd = Literal["mfcc", "bands", "harmony"]
EncoderKind = Literal["autoencoder", "kernel", "mlp", "lstm"]


@dataclass(frozen=True)
class MfccConfig:
    """Samples to cepstra (paper, Table 3.1), by the definitions of python_speech_features 0.6.
    Lengths are in samples, frequencies in Hz.
    """

    sample_rate: int = 16_000  # Hz; paper: 16 kHz
    frame_length: int = 400  # samples; paper: 25 ms
    frame_step: int = 160  # samples; paper: 10 ms
    fft_length: int = 512  # points; paper: 512
    filters: int = 26  # mel bands; paper: 26
    coeffs: int = 13  # cepstra; paper: 13
    low_hz: float = 0.0  # lower edge of the first mel band
    high_hz: float = 8_000.0  # upper edge of the last mel band
    preemphasis: float = 0.97  # y[t] = x[t] - preemphasis * x[t-1]
    lifter: int = 22  # cepstrum q is scaled by 1 + lifter/2 sin(pi q / lifter); 0 = off


@dataclass(frozen=True)
class BandsConfig:
    """Samples to semitone bands. Lengths are in samples, frequencies in Hz."""

    sample_rate: int = 8_000  # Hz
    frame_length: int = 768  # samples; 96 ms
    frame_step: int = 250  # samples; 31.25 ms
    fft_length: int = 1_024  # points
    bands_per_octave: int = 12  # a band is a semitone
    bands: int = 60  # five octaves ...
    low_hz: float = 122.0  # ... from the middle of the first on
    exponent: float = 0.5  # compression of a band's power; 0.5 = its magnitude


@dataclass(frozen=True)
class SegmentConfig:
    """Cepstra to segments, the unit of hashing (paper, III: 100 x 13 every 0.25 s)."""

    frames: int = 100  # frames of a segment; paper: 100 = 1 s
    hop: int = 25  # frames between segments; paper: 0.25 s
    # the paper's "normalized": statistics per coefficient over ...
    normalisation: Normalisation = "corpus"
    # standard deviations; keeps the log of near-silence (13 deviations out) from ruling; 0 = off
    clip: float = 5.0


@dataclass(frozen=True)
class ModelConfig:
    """The sequence-to-sequence autoencoder (paper, Fig. 3.1), and what the paper leaves open."""

    hidden_size: int = 128  # units = bits of a hash; paper: 128
    layers: int = 1  # LSTM cells on top of each other; paper: 1
    decoder_input: DecoderInput = "nothing"  # what the decoder is fed; paper: silent
    decoder_order: DecoderOrder = "reversed"  # order of reconstruction; paper: silent
    # the decoder's first state: H alone, or (c, H); paper: "H is the first state"
    handover: Handover = "hidden"
    readout: Readout = "linear"  # how hidden_size becomes coeffs; paper: silent
    # back-propagate through at most this many steps (paper, II); 0 = through all
    truncation: int = 0
    dtype: Dtype = "float32"  # of the matrix products; parameters stay float32


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation. The paper gives 40 epochs and nothing else."""

    epochs: int = 40  # passes over the training segments; paper: 40
    batch_size: int = 128  # segments a step
    optimizer: Optimizer = "adam"
    learning_rate: float = 3e-3  # its peak
    schedule: Schedule = "cosine"
    warmup_steps: int = 100  # linear warm-up
    final_fraction: float = 0.1  # of the peak, at the last step of the cosine
    clip_norm: float = 5.0  # of the global gradient; 0 = off
    validation_fraction: float = 0.1  # of the recordings, held out whole, chosen by seed
    seed: int = 0  # root of everything random


@dataclass(frozen=True)
class PatchConfig:
    """Bands to patches: what each bit of a code sees."""

    frames: int = 9  # frames of a patch; 9 = 0.35 s
    width: int = 7  # bands of a patch
    hop: int = 2  # frames between two codes; 2 = 16 codes a second
    edge: int = 3  # times that the first and the last frame of a recording are repeated
    first: int = 6  # band of the first bit; 6 = 173 Hz
    bits: int = 32  # bands that have a bit


@dataclass(frozen=True)
class HarmonyConfig:
    """Samples to semitones of a constant Q, and to what a code of versions sees of them."""

    sample_rate: int = 8_000  # Hz
    frame_length: int = 2_048  # samples; 256 ms
    frame_step: int = 400  # samples; 50 ms
    fft_length: int = 4_096  # points
    low_hz: float = 55.0  # middle of the first semitone, A1 ...
    octaves: int = 6  # ... of so many octaves
    exponent: float = 0.25  # compression of a semitone's power; 0.25 = root of its magnitude
    steps: int = 5  # of a code in time ...
    step_frames: int = 3  # ... each the mean of so many frames; 5 x 3 = 1 s with the frame's length
    hop: int = 5  # frames between two codes; 5 = 4 codes a second
    bits: int = 10  # of each of 12 pitch classes
    around: int = 8  # semitones on either side that a partial must stand out from


@dataclass(frozen=True)
class EncoderConfig:
    """Which front end and which function of it a code is."""

    front_end: FrontEnd = "mfcc"  # the paper's cepstra, or semitone bands
    kind: EncoderKind = "autoencoder"  # the paper's LSTM, or a function that all bands share
    hidden: int = 16  # units of the shared mlp or lstm


@dataclass(frozen=True)
class PairsConfig:
    """Training by pairs of a clip and its degraded self; weights of the objective's terms."""

    seconds: float = 1.02  # of a clip
    batch_size: int = 160  # pairs: each clip is told from so many others
    steps: int = 300
    learning_rate: float = 1e-2  # its peak
    warmup_steps: int = 20  # linear warm-up, then a cosine to 0
    clip_norm: float = 1.0  # of the gradient
    separation: float = 1.0  # weight of losses.separation
    margin: float = 6.0  # standard deviations of strangers that are enough
    soft: float = 0.5  # share of the objective in which queries are weighted by |state|
    nt_xent: float = 0.0  # weight of losses.nt_xent
    temperature: float = 0.1  # of nt_xent
    hash_distance: float = 0.0  # weight of SAMAF's second term
    entropy: float = 0.0  # weight of SAMAF's third term
    reconstruction: float = 0.0  # weight of the paper's objective: encoder.kind=autoencoder alone
    decorrelation: float = 0.0  # weight of losses.decorrelation
    seed: int = 0  # root of everything random


@dataclass(frozen=True)
class AugmentConfig:
    """What the degraded half of a training pair has been through: the training distribution."""

    low_db: float = -6.0  # dB, signal-to-noise ratio, drawn evenly from here ...
    high_db: float = 8.0  # ... to here
    recorded: float = 0.5  # share of clips whose first noise is a recorded one, ...
    coloured: float = 0.3  # ... a synthesised one, ...
    music: float = 0.2  # ... other music of the training set
    further: float = 0.3  # chance of each other kind beside the first, at half its level
    room: float = 0.15  # chance of a room
    telephone: float = 0.12  # chance of 300 to 3,400 Hz
    codec: float = 0.1  # chance of a low pass between 1.5 kHz and all
    holes: float = 0.1  # chance of cells without energy
    saturation: float = 0.1  # chance of saturation
    equaliser_db: float = 8.0  # dB, largest gain or loss at each of seven frequencies
    tempo: float = 0.035  # largest change of tempo, as a share
    pitch: float = 0.35  # semitones, largest change of pitch
    jitter: float = 0.5  # frames, largest shift in time


@dataclass(frozen=True)
class CodeConfig:
    """States to bits (paper, III: H > 0 -> 1, H <= 0 -> 0)."""

    # the paper's 0, or the median of each unit over the training states
    threshold: Threshold = "zero"


@dataclass(frozen=True)
class Config:
    """All of it. ``Config()`` is the paper's model with this package's choices where the paper is
    silent.
    """

    mfcc: MfccConfig = field(default_factory=MfccConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    code: CodeConfig = field(default_factory=CodeConfig)
    bands: BandsConfig = field(default_factory=BandsConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    harmony: HarmonyConfig = field(default_factory=HarmonyConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check(self)

    @property
    def code_rate(self) -> float:
        """Codes a second: 4 in the paper."""
        if self.encoder.front_end == "bands":
            return self.bands.sample_rate / (self.bands.frame_step * self.patch.hop)
        if self.encoder.front_end == "harmony":
            return self.harmony.sample_rate / (self.harmony.frame_step * self.harmony.hop)
        return self.mfcc.sample_rate / (self.mfcc.frame_step * self.segment.hop)

    @property
    def segment_seconds(self) -> float:
        """Seconds a segment stands for: segment.frames * frame_step (1 s in the paper)."""
        return self.segment.frames * self.mfcc.frame_step / self.mfcc.sample_rate

    @property
    def words(self) -> int:
        """uint32 words of a code."""
        if self.encoder.front_end == "harmony":  # of a ring of twelve places, and what is left over
            return -(-12 * self.harmony.bits // 32)
        bits = self.patch.bits if self.encoder.front_end == "bands" else self.model.hidden_size
        return bits // 32


@functools.lru_cache(maxsize=64)  # to make a config is to validate it: milliseconds
def encoding_part(config: Config) -> Config:
    """The config with defaults for what cannot change a state: one program hashes for all decoders
    and trainings.
    """
    decoder = ("decoder_input", "decoder_order", "handover", "readout", "truncation")
    defaults = {name: getattr(ModelConfig(), name) for name in decoder}
    model = dataclasses.replace(config.model, **defaults)
    return dataclasses.replace(
        config,
        model=model,
        train=TrainConfig(),
        code=CodeConfig(),
        pairs=PairsConfig(),
        augment=AugmentConfig(),
    )


def check(config: Config) -> None:
    """Raises ValueError, with expected and got, where the fields do not make sense."""
    mfcc, segment, model, train = config.mfcc, config.segment, config.model, config.train
    for name, value in to_flat_dict(config).items():
        kind = _field_type(name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}.")
        if kind is float and not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}.")
        if kind in (int, float) and value < 0 and not name.endswith("_db"):
            raise ValueError(f"{name} must not be negative, got {value}.")
    positive = {
        "mfcc.sample_rate": mfcc.sample_rate,
        "mfcc.frame_step": mfcc.frame_step,
        "mfcc.frame_length": mfcc.frame_length,
        "segment.frames": segment.frames,
        "segment.hop": segment.hop,
        "model.layers": model.layers,
        "train.epochs": train.epochs,
        "train.batch_size": train.batch_size,
        "train.learning_rate": train.learning_rate,
        "bands.sample_rate": config.bands.sample_rate,
        "bands.frame_step": config.bands.frame_step,
        "bands.frame_length": config.bands.frame_length,
        "bands.bands_per_octave": config.bands.bands_per_octave,
        "bands.exponent": config.bands.exponent,
        "patch.frames": config.patch.frames,
        "patch.hop": config.patch.hop,
        **{f"harmony.{name}": value for name, value in dataclasses.asdict(config.harmony).items()},
        "pairs.batch_size": config.pairs.batch_size,
        "pairs.steps": config.pairs.steps,
    }
    for name, value in positive.items():
        if value <= 0:
            raise ValueError(f"{name} must be positive, got {value}.")
    if model.hidden_size <= 0 or model.hidden_size % 32:
        raise ValueError(
            f"model.hidden_size must be a positive multiple of 32, got {model.hidden_size}."
        )
    if mfcc.fft_length < mfcc.frame_length:
        raise ValueError(
            f"mfcc.fft_length must be at least mfcc.frame_length = {mfcc.frame_length}, "
            f"got {mfcc.fft_length}."
        )
    if not 0 < mfcc.coeffs <= mfcc.filters:
        raise ValueError(
            f"mfcc.coeffs must be 1 to mfcc.filters = {mfcc.filters}, got {mfcc.coeffs}."
        )
    if not 0 <= mfcc.low_hz < mfcc.high_hz <= mfcc.sample_rate / 2:
        raise ValueError(
            f"mfcc.low_hz < mfcc.high_hz <= {mfcc.sample_rate / 2} Hz expected, "
            f"got {mfcc.low_hz}, {mfcc.high_hz}."
        )
    _check_bands(config)
    if train.validation_fraction >= 1:
        raise ValueError(
            f"train.validation_fraction must be in [0, 1), got {train.validation_fraction}."
        )
    if train.final_fraction > 1:
        raise ValueError(f"train.final_fraction must be in [0, 1], got {train.final_fraction}.")
    if model.readout == "slice" and mfcc.coeffs > model.hidden_size:
        raise ValueError(
            f"model.readout=slice needs mfcc.coeffs <= model.hidden_size, got {mfcc.coeffs}."
        )


def _check_bands(config: Config) -> None:
    """The same of the second front end, its patches and its encoders."""
    bands, patch, encoder = config.bands, config.patch, config.encoder
    if encoder.front_end == "harmony" and encoder.kind == "autoencoder":
        raise ValueError(
            "encoder.front_end=harmony needs encoder.kind=kernel, mlp or lstm, got autoencoder."
        )
    if encoder.front_end == "mfcc" and encoder.kind != "autoencoder":
        raise ValueError(
            f"encoder.kind={encoder.kind} needs encoder.front_end=bands or harmony, got mfcc."
        )
    whole = (encoder.front_end, encoder.kind) == ("bands", "autoencoder")
    if whole and config.model.hidden_size != patch.bits:
        raise ValueError(
            f"model.hidden_size must be patch.bits = {patch.bits} where encoder.front_end is bands "
            f"and encoder.kind is autoencoder, got {config.model.hidden_size}."
        )
    if config.pairs.reconstruction and encoder.kind != "autoencoder":
        raise ValueError(
            f"pairs.reconstruction needs encoder.kind=autoencoder, got {encoder.kind}."
        )
    top = bands.low_hz * 2.0 ** (bands.bands / bands.bands_per_octave)  # where the last band ends
    if bands.low_hz <= 0 or top > bands.sample_rate / 2:
        raise ValueError(
            f"bands.low_hz to {top:.0f} Hz, where the last of {bands.bands} bands ends, must lie "
            f"in 0 to half of bands.sample_rate = {bands.sample_rate}."
        )
    if bands.fft_length < bands.frame_length:
        raise ValueError(
            f"bands.fft_length must be at least bands.frame_length = {bands.frame_length}, "
            f"got {bands.fft_length}."
        )
    harmony = config.harmony
    if harmony.fft_length < harmony.frame_length:
        raise ValueError(
            f"harmony.fft_length must be at least harmony.frame_length = {harmony.frame_length}, "
            f"got {harmony.fft_length}."
        )
    if harmony.low_hz * 2.0 ** (harmony.octaves + 1 / 12) > harmony.sample_rate / 2:
        raise ValueError(
            f"harmony.octaves from harmony.low_hz = {harmony.low_hz} on must end below half of "
            f"harmony.sample_rate = {harmony.sample_rate}, got {harmony.octaves}."
        )
    if patch.bits <= 0 or patch.bits % 32:
        raise ValueError(f"patch.bits must be a positive multiple of 32, got {patch.bits}.")
    if patch.width % 2 == 0:
        raise ValueError(f"patch.width must be odd, a band in the middle, got {patch.width}.")
    least, most = patch.width // 2, bands.bands - patch.bits - patch.width // 2
    if not least <= patch.first <= most:
        raise ValueError(
            f"patch.first must be {least} to {most}, so that {patch.bits} bits see "
            f"{patch.width} bands of {bands.bands} each, got {patch.first}."
        )
    if 2 * patch.edge >= patch.frames:
        raise ValueError(
            f"patch.edge must be less than half of patch.frames = {patch.frames}: a patch sees a "
            f"frame of its recording; got {patch.edge}."
        )


def override(config: Config, changes: Mapping[str, Any] | Sequence[str]) -> Config:
    """A config with some fields changed.

    Args:
      config: the base.
      changes: {"model.hidden_size": 256, ...}, or the same as strings, ["model.hidden_size=256",
        ...].

    Raises:
      ValueError: an unknown field (the message lists the valid ones), or a value that is not of its
        type.
    """
    if not isinstance(changes, Mapping):
        changes = dict(_split(change) for change in changes)
    flat = to_flat_dict(config)
    for name, value in changes.items():
        if name not in flat:
            raise ValueError(f"Unknown config field {name!r}; the fields are: {', '.join(flat)}.")
        flat[name] = _convert(name, value)
    return from_flat_dict(flat)


def to_flat_dict(config: Config) -> dict[str, Any]:
    """{"mfcc.sample_rate": 16000, ...}: what is written beside every checkpoint and result."""
    nested = dataclasses.asdict(config)
    return {
        f"{group}.{name}": value
        for group, values in nested.items()
        for name, value in values.items()
    }


def identity(config: Config) -> dict[str, Any]:
    """What tells a config from others, {name: value}: the same in this version and in later ones.

    The first version's fields always count, also those that are gone. A later field counts where it
    differs from its default, so that what was made before there was the field keeps its identity:
    such a default must never change.
    """
    defaults = to_flat_dict(type(config)())
    flat = to_flat_dict(config).items()
    return _FIRST | {name: v for name, v in flat if name in _FIRST or v != defaults[name]}


def from_flat_dict(flat: Mapping[str, Any]) -> Config:
    """Inverse of ``to_flat_dict``, for what other versions wrote too.

    A field that is not there has its default. One that this version no longer has may be there with
    the value that is all that is left of it. Anything else unknown is a ValueError.
    """
    groups: dict[str, dict[str, Any]] = {f.name: {} for f in dataclasses.fields(Config)}
    valid = [
        f"{group}.{f.name}" for group, kind in _groups().items() for f in dataclasses.fields(kind)
    ]
    for name, value in flat.items():
        if name not in valid and name in _FIRST:
            if value == _FIRST[name]:
                continue
            raise ValueError(f"{name} can only be {_FIRST[name]!r} in this version, got {value!r}.")
        if name not in valid:
            raise ValueError(f"Unknown config field {name!r}; the fields are: {', '.join(valid)}.")
        group, key = name.split(".")
        groups[group][key] = _convert(name, value)
    return Config(**{group: kind(**groups[group]) for group, kind in _groups().items()})


_hints = functools.cache(get_type_hints)  # asked for every field of every config that is made


def _groups() -> dict[str, Any]:
    return _hints(Config)


def _field_type(name: str) -> Any:
    group, key = name.split(".")
    return _hints(_groups()[group])[key]


def _split(change: str) -> tuple[str, str]:
    name, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"A change is written name=value, got {change!r}.")
    return name.strip(), value.strip()


def _convert(name: str, value: Any) -> Any:
    """The value as its field's type; text from a flag or a JSON file is read, anything lossy is
    refused.
    """
    kind = _field_type(name)
    if get_origin(kind) is Literal:
        return str(value)  # checked by ``check``, with the choices in the message
    try:
        converted = kind(value)
        exact = isinstance(value, str) or converted == value or value != value
    except (TypeError, ValueError):
        exact = False
    if not exact or isinstance(value, bool):
        raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r}.")
    return converted


# The first version's fields and their defaults, for ``identity``. It is never changed: exported
# hashers, indexes and runs are known by it.
_FIRST: dict[str, Any] = {
    "mfcc.sample_rate": 16_000,
    "mfcc.frame_length": 400,
    "mfcc.frame_step": 160,
    "mfcc.fft_length": 512,
    "mfcc.filters": 26,
    "mfcc.coeffs": 13,
    "mfcc.low_hz": 0.0,
    "mfcc.high_hz": 8_000.0,
    "mfcc.preemphasis": 0.97,
    "mfcc.lifter": 22,
    "mfcc.variant": "psf",
    "segment.frames": 100,
    "segment.hop": 25,
    "segment.normalisation": "corpus",
    "segment.clip": 5.0,
    "model.hidden_size": 128,
    "model.layers": 1,
    "model.decoder_input": "nothing",
    "model.decoder_order": "reversed",
    "model.handover": "hidden",
    "model.readout": "linear",
    "model.truncation": 0,
    "model.dtype": "float32",
    "train.epochs": 40,
    "train.batch_size": 128,
    "train.optimizer": "adam",
    "train.learning_rate": 3e-3,
    "train.schedule": "cosine",
    "train.warmup_steps": 100,
    "train.final_fraction": 0.1,
    "train.clip_norm": 5.0,
    "train.validation_fraction": 0.1,
    "train.seed": 0,
    "code.threshold": "zero",
}
