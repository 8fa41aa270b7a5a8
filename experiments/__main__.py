"""All scripts behind one door, from a clone and from anywhere once the package is installed.

python -m experiments NAME ...              # in a clone; the same as python -m experiments.NAME
python -m seqhash.experiments NAME ...      # anywhere
"""

import ast
import runpy
import sys
from pathlib import Path

EXIT_BAD_INPUT = 2


def main(argv: list[str]) -> int:
    """Runs the script that is named first; without one, lists them. Returns the exit status."""
    scripts = summaries()
    if not argv or argv[0] in ("--help", "-h"):
        print(f"usage: python -m {__package__} NAME ...     (NAME --help has a script's flags)\n")
        print("\n".join(f"  {name:16} {summary}" for name, summary in scripts.items()))
        return 0
    name, *rest = argv
    if name not in scripts:
        print(f"no script {name!r}; there are {', '.join(scripts)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    sys.argv[1:] = rest
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
    return 0


def summaries() -> dict[str, str]:
    """The first sentence of each script, by name. A script is a module that runs by itself."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.stem != "__main__" and 'if __name__ == "__main__":' in text:
            about = ast.get_docstring(ast.parse(text)) or ""
            found[path.stem] = " ".join(about.split("\n\n")[0].split())
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
