r"""Corpus to feature store: decodes every recording of a manifest or folder and keeps its MFCC
frames.

    python -m experiments.prepare --corpus=manifest.csv --workdir=runs/mine

Run again, it makes only what is missing or has changed. Files that cannot be used are listed at the
end and left out; of damaged ones what can be decoded is used, and a warning says what is lost. With
--strict damaged files are refused, and the exit status is 3 if a file could not be used.

Expect 3 s for an hour of Ogg Vorbis on 2 cores, and 19 MB on disk.
"""

from pathlib import Path

from absl import flags

from seqhash import corpus, features
from seqhash.config import Config, override

from . import script

_CORPUS = flags.DEFINE_string(
    "corpus", None, "manifest (.csv) or folder of recordings", required=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run; features go to WORKDIR/features", required=True
)
_SET = flags.DEFINE_multi_string(
    "set", [], "change of a field mfcc.*, as mfcc.coeffs=20; any number"
)
_WORKERS = flags.DEFINE_integer("workers", 2, "files decoded at a time", lower_bound=1)
_STRICT = flags.DEFINE_boolean(
    "strict", False, "refuse damaged files; exit with status 3 if a file could not be used"
)


def main() -> int:
    """Prepares; returns the exit status."""
    config = override(Config(), _SET.value)
    other = [change for change in _SET.value if not change.strip().startswith("mfcc.")]
    if other:
        raise ValueError(
            f"--set={other[0]}: features depend on the fields mfcc.* only; give this to train."
        )
    recordings = corpus.recordings(_CORPUS.value)
    report = features.prepare_for(
        config,
        recordings,
        Path(_WORKDIR.value) / "features",
        workers=_WORKERS.value,
        strict=_STRICT.value,
        report=script.report_flaw,
    )
    script.report_failures(report.failed)
    print(
        f"{len(report.prepared)} prepared, {len(report.reused)} already there, "
        f"{len(report.failed)} failed"
    )
    if not report.prepared and not report.reused:
        raise ValueError(f"{_CORPUS.value}: holds no recording that can be used.")
    return script.EXIT_STRICT if report.failed and _STRICT.value else 0


if __name__ == "__main__":
    script.run(main, more_of="set", resumes=True)
