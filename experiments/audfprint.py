r"""audfprint answers as an outside program of the robustness report:
``--systems=hasher,shazam,audfprint``.

    pip install -e ".[peers]"        # audfprint2, imageio-ffmpeg
    python -m experiments.audfprint --references=R.txt --clips=C.txt --answers=A.csv --folder=F
        [--program=DIR]

audfprint (D. Ellis; MIT) is the public implementation of Wang's landmarks that is compared with
most. Either the package audfprint2 is run or, where --program names it, a clone of
github.com/dpwe/audfprint. Both read audio by ffmpeg: the one on the PATH, else that of the package
imageio-ffmpeg. Parameters are its defaults, but for the count of aligned hashes that makes an
answer (5, strictly more are needed): all are written, with the count as score. Each batch of clips
starts it anew; about 80 CPU ms a clip of 1 to 3 s in all (docs/results.md).
"""

import argparse
import csv
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from seqhash.robustness.systems import Outside

DEFAULT_COUNT = 6.0  # aligned hashes of an answer by audfprint's own rule
_ANSWER = re.compile(
    r"Matched (.+?) [\d.]+ sec \d+ raw hashes as (.+?) at\s+(-?[\d.]+) s with\s+(\d+) of "
)


def missing(program: str | None) -> str | None:
    """Why audfprint cannot be run; None where it can."""
    if program and not (Path(program) / "audfprint.py").is_file():
        return f"{program} has no audfprint.py"
    if not program and importlib.util.find_spec("audfprint2") is None:
        return "the package audfprint2 is not installed"
    if shutil.which("ffmpeg") is None and importlib.util.find_spec("imageio_ffmpeg") is None:
        return "it needs ffmpeg on the PATH or the package imageio-ffmpeg"
    return None


def system(folder: Path, program: str | None) -> Outside:
    """audfprint as one of the systems that are compared.

    Raises:
      ValueError: it is not there.
    """
    if (reason := missing(program)) is not None:
        raise ValueError(f"audfprint: {reason}.")
    names = " ".join(
        f"--{name}={{{name}}}" for name in ("references", "clips", "answers", "folder")
    )
    chosen = f" --program={shlex.quote(program)}" if program else ""
    return Outside(
        name="audfprint",
        command=f"{shlex.quote(sys.executable)} -m {__package__}.audfprint {names}{chosen}",
        folder=str(folder),
        description="Ellis's landmarks, a public implementation of Wang's",
        default_score=DEFAULT_COUNT,
    )


def main() -> None:
    """Makes the table where it is missing, asks, writes the answers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--references", required=True, help="file of paths of WAV files, one a line"
    )
    parser.add_argument("--clips", required=True, help="the same, what is asked")
    parser.add_argument("--answers", required=True, help="CSV to write: clip,track,offset,score")
    parser.add_argument(
        "--folder", required=True, type=Path, help="where its table of the references is kept"
    )
    parser.add_argument(
        "--program", type=Path, help="folder of audfprint.py; default: the package audfprint2"
    )
    asked = parser.parse_args()
    table = asked.folder / "audfprint.pklz"
    if not table.is_file():
        _audfprint(asked.program, asked.folder, "new", "-d", str(table), "-l", asked.references)
    said = _audfprint(
        asked.program, asked.folder, "match", "-d", str(table), "-l", "-N", "0", asked.clips
    )
    with open(asked.answers, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "track", "offset", "score"])
        writer.writerows(_ANSWER.findall(said))


def _audfprint(program: Path | None, folder: Path, job: str, *options: str) -> str:
    """What it says; where it fails, the end of that is the last that is said here."""
    if program:
        command = [sys.executable, str(program / "audfprint.py"), job, *options]
    else:  # wants the options first, and answers only when it is asked to say more
        command = [sys.executable, "-m", "audfprint2", "-v", *options[:-1], job, options[-1]]
    done = subprocess.run(command, capture_output=True, text=True, env=_with_ffmpeg(folder))
    said = done.stdout + done.stderr
    if done.returncode:
        sys.exit(f"audfprint {job} ended with {done.returncode}: {said[-500:]}")
    return said


def _with_ffmpeg(folder: Path) -> dict[str, str]:
    """The environment with an ``ffmpeg`` on the PATH."""
    if shutil.which("ffmpeg") is not None:
        return dict(os.environ)
    import imageio_ffmpeg

    link = folder.resolve() / "bin" / "ffmpeg"
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    return os.environ | {"PATH": f"{link.parent}{os.pathsep}{os.environ.get('PATH', '')}"}


if __name__ == "__main__":
    main()
