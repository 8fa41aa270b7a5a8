r"""A trained run to a directory of plain files that loads without orbax: config, weights, model
card.

    python -m experiments.export --workdir=runs/demo --directory=my-hasher --name=my-hasher

    import seqhash; seqhash.load_hasher("my-hasher").hash_samples(samples)

The hasher that the package carries was made by python -m experiments.reproduce --workdir=runs/demo,
and this command with --directory=seqhash/hashers/paper-128 --name=paper-128 and the former as
--made_by.

Expect 5 s, and 300 kB for the paper's model.
"""

import shlex
import sys
from pathlib import Path

from absl import flags

from seqhash import checkpoint, evaluate, export, files
from seqhash.config import Config, to_flat_dict

from . import script

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of a trained and evaluated run", required=True
)
_DIRECTORY = flags.DEFINE_string(
    "directory", None, "where to write; a hasher that is there is replaced", required=True
)
_NAME = flags.DEFINE_string(
    "name", None, "name of the hasher, shown beside its results", required=True
)
_MADE_BY = flags.DEFINE_string(
    "made_by", None, "command for the model card; default: how train makes the checkpoint"
)


def main() -> int:
    """Exports; returns the exit status."""
    workdir, target = Path(_WORKDIR.value), Path(_DIRECTORY.value)
    trained = checkpoint.load_trained(workdir / "checkpoints")
    hasher = checkpoint.hasher_of(trained, name=_NAME.value)
    results = workdir / "results.json"
    result = files.read_json(results) if results.exists() else None
    if result is not None and result.get("hasher") != hasher.digest:
        print(
            f"{results}: of another model, so the card says not evaluated; run evaluate first",
            file=sys.stderr,
        )
        result = None
    made_by = _MADE_BY.value or _training_command(workdir, trained.config)
    directory = export.export_hasher(hasher, target, card=_card(hasher, trained, result, made_by))
    print(
        f"{directory}: {sum(file.stat().st_size for file in directory.iterdir()) / 1024:.0f} kB, "
        f"{hasher.digest[:12]}"
    )
    return 0


def _training_command(workdir: Path, config: Config) -> str:
    """Train with every field that is not the default; those of the features were prepare's."""
    defaults = to_flat_dict(Config())
    changes = [
        f"--set={name}={value}"
        for name, value in to_flat_dict(config).items()
        if value != defaults[name]
    ]
    return shlex.join(["python", "-m", f"{__package__}.train", f"--workdir={workdir}", *changes])


def _card(hasher, trained: checkpoint.Trained, result: dict | None, made_by: str) -> str:
    """The model card: what it is, the command that trained it, what it was trained on, its
    numbers.
    """
    config = trained.config
    unfinished = f" of {config.train.epochs}" * (trained.epoch < config.train.epochs)
    lines = [
        f"# {hasher.name}",
        "",
        f"{config.model.hidden_size}-bit audio hasher: {config.segment_seconds:g} s segments, "
        f"{config.code_rate:g} codes a second, {config.mfcc.sample_rate} Hz, "
        f"threshold {config.code.threshold}. Sequence-to-sequence LSTM autoencoder "
        f"({config.model.layers} layer, decoder fed {config.model.decoder_input}, "
        f"{config.model.decoder_order} order, "
        f"handing over {config.model.handover.replace('_', ' ')}).",
        "",
        f"Identity (SHA-256 of config and weights): `{hasher.digest}`.",
        f"Trained for {trained.epoch}{unfinished} epochs, {trained.step} steps, by",
        "",
        f"    {made_by}",
        "",
    ]
    if result is None:
        return "\n".join([*lines, "Not evaluated."]) + "\n"
    training, rows = result["training"], result["training"]["epochs"]
    lines += [
        f"{training['recordings']} recordings; {training['setting']} below. "
        f"Train loss {rows[0]['train_loss']:.2f} untrained, "
        f"{rows[-1]['train_loss']:.2f} in the last epoch.",
        "",
        "## Cover accuracy and its floors",
        "",
        "```",
        evaluate.table(result, name=hasher.name),
        "```",
        "",
        evaluate.verdict(result),
        "",
        "Versions: "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    script.run(main)
