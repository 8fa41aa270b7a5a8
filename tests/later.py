"""A config as a later version may have it: one field more, and a group of fields more."""

from dataclasses import dataclass, field

from seqhash.config import Config, MfccConfig


@dataclass(frozen=True)
class LaterMfccConfig(MfccConfig):
    dither: float = 0.0


@dataclass(frozen=True)
class EarConfig:
    exponent: float = 0.5


@dataclass(frozen=True)
class LaterConfig(Config):
    mfcc: LaterMfccConfig = field(default_factory=LaterMfccConfig)
    ear: EarConfig = field(default_factory=EarConfig)
