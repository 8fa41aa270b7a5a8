"""The installed command ``seqhash``: parses and prints, nothing else.

Exit statuses:

===  ===============================================================================================
0    done; of ``identify``: there is an answer (of several files, to one of them at least)
1    ``identify``: no match; ``verify``: there are problems
2    what was asked for cannot be done; one message on stderr says why
3    ``identify``, ``add --strict``: a file could not be used; ``add``: none could
130  interrupted (Ctrl-C); what was added is kept, and the same command goes on where it stopped
141  who reads the output has ended, as with ``| head``
===  ===============================================================================================
"""

import contextlib
import gc
import importlib.metadata
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from seqhash import audio, corpus, decode, exported, files, parallel, tables
from seqhash.index import compare, exchange, follow, ingest
from seqhash.index.catalogue import (
    Identity,
    Index,
    IndexFileError,
    NotMadeError,
    Row,
    delete_empty,
    open_index,
    require_same,
)

if TYPE_CHECKING:  # a command that hashes nothing starts without jax
    from seqhash.codes import Hasher
    from seqhash.index.identify import Searcher, Survey
    from seqhash.index.listen import Event
    from seqhash.index.together import Answer, Found, Together

EXIT_NONE = 1
EXIT_BAD_INPUT = 2
EXIT_FAILED = 3
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
CLIPS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)  # s, of which info says whether they are answered
ANSWERED = 0.95  # of them
MISSES = 3  # that --all shows
LONGEST_TITLE = 80  # characters that tables show
LISTED = 20  # files that were moved and so on, each by its name
EXPORTS = {
    ".faiss": exchange.export_faiss,
    ".npz": exchange.export_npz,
    ".parquet": exchange.export_parquet,
}


Read = Callable[..., Iterator[np.ndarray]]  # ``audio.blocks``, or as it


class UsageError(ValueError):
    """Arguments that make no command."""


class Command(NamedTuple):
    """One subcommand."""

    usage: str  # its arguments
    summary: str  # one line
    define: tuple[Callable[[flags.FlagValues], None], ...]  # its flags
    run: Callable[[flags.FlagValues, list[str]], int]  # (flags, other arguments) -> exit status
    example: str
    notes: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line, ``sys.argv`` unless another is given (without the program's name); the
    exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stdout is None:
        reason = "standard output is closed; redirect it to /dev/null if it is not wanted"
        print(f"error: {reason}", file=sys.stderr)
        return EXIT_BAD_INPUT
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold what the terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if argv is None:  # jax makes half a million objects, and Python would look for garbage often
        gc.set_threshold(50_000, 20, 20)
    try:
        status = _run(arguments)
        sys.stdout.flush()
        if argv is None:  # the process ends, and need not look through all that jax made once more
            gc.freeze()
        return status
    except BrokenPipeError:  # as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        # XLA may still be computing; Python's orderly end meanwhile is now and then a segfault.
        if argv is None:
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)
        return EXIT_INTERRUPTED
    except (ValueError, OSError, MemoryError) as error:
        lines = (str(error) or type(error).__name__).splitlines()
        print("error: " + "\n".join(map(_plain, lines)), file=sys.stderr)
        return EXIT_BAD_INPUT


def _run(arguments: list[str]) -> int:
    if not arguments:
        raise UsageError("a command is missing; see seqhash --help.")
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        print(f"seqhash {importlib.metadata.version('seqhash')}")
        return 0
    if name == "help" and rest and rest[0] in COMMANDS:
        name, rest = rest[0], ["--help"]
    if name in ("--help", "-h", "help"):
        print(_overview())
        return 0
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}; the commands are {', '.join(COMMANDS)}.")
    command, values = COMMANDS[name], flags.FlagValues()
    for define in command.define:
        define(values)
    if "--help" in rest or "-h" in rest:
        print(_help(name, command, values))
        return 0
    try:
        _, *others = values([name, *rest])
    except flags.Error as error:
        dashed = [one for one in rest if one.startswith("-") and os.path.exists(one)]
        hint = f" A file whose name begins with a dash: ./{dashed[0]}." if dashed else ""
        text = re.sub(r"\('(.*)', '(.*)'\)$", r"\1 '\2'", str(error))  # absl's tuple
        raise UsageError(f"{text}; see seqhash {name} --help.{hint}") from error
    return command.run(values, others)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    hint = "(seqhash COMMAND --help has the command's flags and an example)"
    statuses = "exit status: 0 done, 2 wrong input, 130 interrupted, 141 nobody reads the output;"
    more = ["", statuses, "1 and 3 are in the help of add, identify and verify", ""]
    more += ["seqhash --version says which one this is."]
    return "\n".join([f"usage: seqhash COMMAND ARGUMENTS...     {hint}", "", *lines, *more])


def _help(name: str, command: Command, values: flags.FlagValues) -> str:
    lines = []
    for flag in (values[key] for key in values):
        default = "" if flag.default in (None, False, "") else f" (default: {flag.default})"
        value = "" if flag.boolean else f"={flag.name.split('_')[-1].upper()}"
        lines.append(f"  {f'--{flag.name}{value}':32}  {_text(flag)}{default}")
    notes = ["", command.notes] if command.notes else []
    usage = f"usage: seqhash {name} {command.usage}"
    example = f"example: seqhash {name} {command.example}"
    return "\n".join([usage, example, "", f"{command.summary}.", *notes, "", *lines])


# Flags, and what they stand for.


def _text(flag: flags.Flag) -> str:
    """What a flag is, without what absl adds."""
    return str(flag.help).partition("\n")[0].rstrip(";")


def _index_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_string("index", None, "the index file; required", flag_values=values)


def _indexes_flag(values: flags.FlagValues) -> None:
    text = "the index file; several are asked together; required"
    flags.DEFINE_multi_string("index", None, text, flag_values=values)


def _hasher_flag(values: flags.FlagValues) -> None:
    text = (
        "a hasher of the package, or the folder of an exported one; default: the index's own, "
        "where the package has it; semitone-32 for a new index, or without one"
    )
    flags.DEFINE_string("hasher", None, text, flag_values=values)


def _json_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean(
        "json", False, "one JSON object a line instead of a table", flag_values=values
    )


def _answers_flag(values: flags.FlagValues) -> None:
    text = "say what clips it can answer, and how many are answered falsely; takes some seconds"
    flags.DEFINE_boolean("answers", False, text, flag_values=values)


def _plot_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "plot", None, "write a picture of the bits that differ, a .png", flag_values=values
    )


def _add_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "workers", parallel.cores(), "processes that decode", lower_bound=1, flag_values=values
    )
    flags.DEFINE_boolean(
        "strict",
        False,
        "refuse damaged files; exit with status 3 if a file could not be used",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "prune",
        False,
        "remove recordings whose files are gone from the folders that are named",
        flag_values=values,
    )


def _channel_flag(values: flags.FlagValues) -> None:
    text = (
        "of each file: first, mix (the mean of all), or a number from 1; default: the index's, "
        "or first"
    )
    flags.DEFINE_string("channel", None, text, flag_values=values)


def _identify_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean("strict", False, "refuse damaged files", flag_values=values)
    text = "every place of a clip, also where it repeats itself, and the nearest misses"
    flags.DEFINE_boolean("all", False, text, flag_values=values)
    flags.DEFINE_float(
        "false_positive_rate",
        0.01,
        "of queries that are not there; of a stream, of each 10 s",
        1e-9,
        0.3,
        flag_values=values,
    )
    flags.register_validator(  # NaN is beyond no bound
        "false_positive_rate", math.isfinite, "nan is not a number.", flag_values=values
    )
    low, high = audio.RATES
    flags.DEFINE_integer(
        "rate", 16_000, "of raw samples on standard input, Hz", low, high, flag_values=values
    )
    flags.DEFINE_enum(
        "format", "s16le", list(audio.RAW), "of raw samples: s16le or f32le", flag_values=values
    )


def _to_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "to", None, f"the file to write: {', '.join(EXPORTS)}; required", flag_values=values
    )


def _required(values: flags.FlagValues, name: str) -> str:
    value = values[name].value
    if not value:
        raise UsageError(f"--{name} is missing: {_text(values[name]).removesuffix('; required')}.")
    return str(value)


def _named(others: list[str], what: str) -> list[str]:
    if not others:
        raise UsageError(f"name at least one {what}.")
    return others


def _nothing_else(others: list[str]) -> None:
    if others:
        raise UsageError(f"unexpected argument {others[0]!r}.")


def _png(values: flags.FlagValues) -> Path | None:
    if values.plot and not values.plot.lower().endswith(".png"):
        raise UsageError(f"--plot must end in .png, got {values.plot!r}.")
    if not values.plot:
        return None
    try:
        files.require_writable(values.plot)
    except OSError as error:
        reason = f"{values.plot} cannot be written ({error.strerror})"
        raise UsageError(f"--plot: {reason}; name another file.") from error
    return Path(values.plot)


def _load_hasher(values: flags.FlagValues, index: str | None = None) -> "Hasher":
    """The hasher that --hasher names; else the one that an index was made with, where the package
    has it; else the package's first choice.
    """
    from seqhash import compilation
    from seqhash.export import load_hasher

    compilation.keep_programs()
    name = values.hasher
    if name is None and index is not None and os.path.exists(index):
        with open_index(index, readonly=True) as opened:
            name = opened.identity.name
    own = values.hasher or name in exported.packaged()
    return load_hasher(name if own else exported.DEFAULT)


def _is_new(path: str) -> bool:
    """Whether no index is at a path, or one that was never made to its end."""
    if not os.path.exists(path):
        return True
    try:
        open_index(path, readonly=True).close()
    except NotMadeError:
        return True
    except IndexFileError:  # which is said where it is opened
        return False
    return False


def _open(values: flags.FlagValues, *, readonly: bool) -> Index:
    return open_index(_required(values, "index"), readonly=readonly)


# Commands.


def _add(values: flags.FlagValues, others: list[str]) -> int:
    path = _required(values, "index")
    gathered = ingest.gather(_named(others, "file, folder or manifest"))
    new = _is_new(path)
    hasher = _load_hasher(values) if new else None
    identity = Identity.of(hasher) if hasher else None
    if not new and values.hasher:
        identity = _identity(values, path)
    channel, create = _channel(values), identity is not None
    with open_index(path, identity=identity, create=create, channel=channel) as index:
        if hasher:
            print(f"new index, hasher {hasher.name}", file=sys.stderr)
        bar, before = sys.stderr.isatty(), index.info()["recordings"]

        def load() -> "Hasher":  # jax only where there is something to hash
            loaded = hasher or _load_hasher(values, path)
            require_same(Path(path), index.identity, Identity.of(loaded))
            return loaded

        try:
            counts = ingest.add_files(
                index,
                load,
                gathered,
                workers=values.workers,
                progress=bar,
                prune=values.prune,
                strict=values.strict,
                report=_warn,
            )
        except KeyboardInterrupt:
            added = index.info()["recordings"] - before
            hint = "the index is whole, and the same command goes on where it stopped"
            raise KeyboardInterrupt(f"added {added}", hint) from None
    if new:  # an empty one would be left of files that cannot be used
        delete_empty(path)
    return _print_counts(counts, gathered, strict=values.strict, pruned=values.prune)


def _channel(values: flags.FlagValues) -> str | None:
    try:
        return audio.check_channel(values.channel) if values.channel else None
    except ValueError as error:
        raise UsageError(f"--{error}") from error


def _warn(flaw: audio.Flaw) -> None:
    with tqdm.external_write_mode(sys.stderr):
        print(_plain(f"warning {flaw}"), file=sys.stderr)


@dataclass
class _Told:
    """Warnings of the files of one line of JSON; each is printed as well, and once."""

    flaws: list[audio.Flaw] = field(default_factory=list)

    def __call__(self, flaw: audio.Flaw) -> None:
        if flaw not in self.flaws:
            self.flaws.append(flaw)
            _warn(flaw)

    def facts(self) -> list[dict[str, Any]]:
        """Plain values, for JSON, of those since the last call."""
        flaws, self.flaws = self.flaws, []
        return [flaw._asdict() | {"path": str(flaw.path)} for flaw in flaws]


def _identity(values: flags.FlagValues, path: str) -> Identity | None:
    """Of the hasher that is named: that of the index, where it states its digest, without jax."""
    with contextlib.suppress(IndexFileError), open_index(path, readonly=True) as index:
        if index.identity.digest == exported.stated_digest(values.hasher):
            return index.identity
    return Identity.of(_load_hasher(values, path))


def _print_counts(
    counts: ingest.Counts, gathered: ingest.Gathered, *, strict: bool, pruned: bool
) -> int:
    """What became of every file, and the exit status."""
    followed = counts.followed
    for file, reason in counts.failed:
        print(_plain(f"failed {file}: {reason}"), file=sys.stderr)
    for what, paths in followed._asdict().items():
        for file in paths[:LISTED]:
            print(_plain(f"{what} {file}"), file=sys.stderr)
        if len(paths) > LISTED:
            print(f"{what} {len(paths) - LISTED} more", file=sys.stderr)
    if gathered.skipped:
        kinds = ", ".join(f"{n} {kind}" for kind, n in gathered.skipped.most_common())
        print(_plain(f"skipped, not audio by their names: {kinds}"), file=sys.stderr)
    if followed.gone and not pruned:
        print("what is gone stays in the index; --prune removes it", file=sys.stderr)
    numbers = {
        "added": counts.added,
        "already there": counts.present,
        "failed": len(counts.failed),
    }
    others = {what: len(paths) for what, paths in followed._asdict().items()}
    others["pruned" if pruned else "gone"] = others.pop("gone")
    others["skipped"] = gathered.skipped.total()
    numbers |= {what: number for what, number in others.items() if number}
    print(", ".join(f"{what} {number}" for what, number in numbers.items()))
    done = counts.added or counts.present or any(followed._replace(gone=[]))
    return EXIT_FAILED if counts.failed and (strict or not done) else 0


def _remove(values: flags.FlagValues, others: list[str]) -> int:
    names = _named(others, "id, path or folder")
    with _open(values, readonly=False) as index:
        # What is named by its id goes, however damaged its line is.
        rows = [] if all(map(_is_id, names)) else index.rows()
        by_name = [_found(index, rows, name) for name in names]
        missing = [name for name, found in zip(names, by_name, strict=True) if not any(found)]
        if missing:
            hint = "nothing was removed ('seqhash list' shows all)"
            raise ValueError(f"not in the index: {', '.join(missing)}; {hint}.")
        roots = [Path(os.path.abspath(name)) for name in names if not _is_id(name)]
        removed, below = (set().union(*ids) for ids in zip(*by_name, strict=True))
        elsewhere = dict[int, str]()
        for i in below - removed:
            outside = (place for place in index.places(i) if not follow.is_below(place, roots))
            if there := next((place for place in outside if not follow.is_gone(place)), None):
                elsewhere[i] = there
        removed |= below - elsewhere.keys()
        index.move(elsewhere, {}, removed)
    kept = f", kept {len(elsewhere)} that have a copy elsewhere" if elsewhere else ""
    print(f"removed {len(removed)}{kept}")
    return 0


def _found(index: "Index", rows: Sequence[Row], name: str) -> tuple[set[int], set[int]]:
    """Ids that an argument names, and those of what lies in the folder that it names: a number is
    an id, all else a file or a folder.
    """
    if _is_id(name):
        return index.ids() & {int(name)}, set()
    path = os.path.abspath(name)
    if exact := {row.id for row in rows if row.path in (name, path)}:
        return exact, set()
    return set(), {row.id for row in rows if follow.is_below(row.path, [Path(path)])}


def _is_id(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _list(values: flags.FlagValues, others: list[str]) -> int:
    _nothing_else(others)
    with _open(values, readonly=True) as index:
        rows = index.rows()
    if values.json:
        for row in rows:
            print(json.dumps(row._asdict(), allow_nan=False))
        return 0
    cells = [
        (str(row.id), _time(row.duration), _short(row.title), _short(row.artist), row.path)
        for row in rows
    ]
    _print_table(("id", "length", "title", "artist", "path"), cells)
    return 0


def _info(values: flags.FlagValues, others: list[str]) -> int:
    _nothing_else(others)
    with _open(values, readonly=True) as index:
        info = index.info()
    if values.answers:
        info |= {"answers": _reach(values)}
    if values.json:
        print(json.dumps(info, allow_nan=False))
        return 0
    hasher, answers = info.pop("hasher"), info.pop("answers", None)
    for name, value in info.items():
        print(f"{name:<11} {_time(value) if name == 'duration' else value}")
    facts = "".join(f"  {name} {value}" for name, value in hasher.items() if name != "name")
    print(f"{'hasher':<11} {hasher['name']}{facts}")
    if answers is None:
        print(f"{'answers':<11} seqhash info --answers says what clips it can answer")
        return 0
    rate, shortest = answers["false_positive_rate"], answers["shortest_clip"]
    print(f"{'answers':<11} {rate:.2g} of absent clips at most, and of each 10 s of a stream")
    found = "no length" if shortest is None else f"{shortest:g} s"
    print(f"{'shortest':<11} {found}, of which {ANSWERED:.0%} of its own clips are answered")
    for seconds, share in answers["answered"].items():
        print(f"{'':<11} {share:>4.0%} of {seconds} s")
    return 0


def _reach(values: flags.FlagValues) -> dict[str, Any]:
    """What clips an index can answer."""
    from seqhash.index.identify import FALSE_POSITIVE_RATE, open_searcher

    path = _required(values, "index")
    searcher = open_searcher(path, _load_hasher(values, path))
    longest = max((row.duration for row in searcher.rows), default=0.0)
    shares = {f"{s:g}": searcher.reach(s) for s in CLIPS if s <= longest}
    enough = [float(seconds) for seconds, share in shares.items() if share >= ANSWERED]
    return {
        "false_positive_rate": FALSE_POSITIVE_RATE,
        "shortest_clip": enough[0] if enough else None,
        "answered": shares,
    }


def _merge(values: flags.FlagValues, others: list[str]) -> int:
    path = _required(values, "index")
    with open_index(_named(others, "other index")[0], readonly=True) as first:
        identity, channel = first.identity, first.channel
    with open_index(path, identity=identity, create=True, channel=channel) as index:
        counts = [exchange.merge(index, other) for other in others]
    _print_brought(counts)
    return 0


def _import(values: flags.FlagValues, others: list[str]) -> int:
    path = _required(values, "index")
    first = _named(others, "npz file")[0]
    identity, channel = exchange.npz_made_of(first)
    with open_index(path, identity=identity, create=True, channel=channel) as index:
        counts = [exchange.import_npz(index, other) for other in others]
    _print_brought(counts)
    return 0


def _print_brought(counts: Sequence[exchange.Added]) -> None:
    added, present = (sum(column) for column in zip(*counts, strict=True))
    print(f"added {added}, already there {present}")


def _export(values: flags.FlagValues, others: list[str]) -> int:
    _nothing_else(others)
    target = Path(_required(values, "to"))
    if target.suffix.lower() not in EXPORTS:
        raise UsageError(f"--to must end in {', '.join(EXPORTS)}, got {values.to!r}.")
    with _open(values, readonly=True) as index:
        ids = EXPORTS[target.suffix.lower()](index, target)
    print(f"wrote {target}" + (f", id map {ids}" if ids else ""))
    return 0


def _verify(values: flags.FlagValues, others: list[str]) -> int:
    _nothing_else(others)
    with _open(values, readonly=True) as index:
        problems = index.verify()
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems")
    return EXIT_NONE if problems else 0


def _compact(values: flags.FlagValues, others: list[str]) -> int:
    _nothing_else(others)
    with _open(values, readonly=False) as index:
        before, after = index.compact()
    print(f"{before} bytes before, {after} after")
    return 0


def _identify(values: flags.FlagValues, others: list[str]) -> int:
    _required(values, "index")
    plot, files = _png(values), _named(others, "file, or - for standard input")
    if plot and len(files) > 1:
        raise UsageError(f"--plot draws one query, got {len(files)}.")
    if files.count("-") > 1:
        raise UsageError("- is standard input, and can be read once.")
    if "-" in files and sys.stdin is None:
        raise UsageError("- is standard input, which is closed.")
    for path in values.index:
        open_index(path, readonly=True).close()  # what is wrong with one is said before jax starts
    answers = []
    with contextlib.ExitStack() as stack:
        read: Read = audio.blocks
        if files != ["-"]:  # it starts while jax does
            read = stack.enter_context(decode.Reader()).blocks
        from seqhash.index.together import open_together

        together = open_together(
            values.index,
            lambda path: _load_hasher(values, path),
            false_positive_rate=values.false_positive_rate,
            everywhere=values.all,
        )
        if "-" in files:
            searchers = together.searchers.values()
            heard = {(one.hasher.sample_rate, _channel(values) or one.channel) for one in searchers}
            if len(heard) > 1:  # it can be read once
                raise UsageError("- can be asked of indexes of one sample rate and channel only.")
        for path, searcher in together.searchers.items():
            if not searcher.rows:
                print(f"{path}: an empty index; 'seqhash add' fills it", file=sys.stderr)
        for file in files:
            told = _Told()
            if file == "-" and not plot:
                answers.append(_listen(together, values, told))
                continue
            answer, samples, error = _answer(together, values, file, read, told)
            answers.append((bool(answer.matches), error))
            _print_answer(file, answer, error, values, told)
            if plot and error is None:
                _try_plot(plot, values, file, samples, answer.matches)
    if any(error is not None for _, error in answers):
        return EXIT_FAILED
    return 0 if any(found for found, _ in answers) else EXIT_NONE


def _answer(
    together: "Together", values: flags.FlagValues, file: str, read: Read, told: _Told
) -> tuple["Answer", np.ndarray | None, str | None]:
    """The answer, samples of standard input that a picture needs, and the reason why there is no
    answer.
    """
    from seqhash.index.together import Answer

    try:
        samples = None
        if file == "-":
            (searcher,) = [*together.searchers.values()][:1]
            blocks = _standard_input(values, searcher, told, block_seconds=60.0)
            samples = np.concatenate(list(blocks))
        answer = together.ask(lambda searcher: _survey(searcher, values, file, samples, read, told))
        return answer, samples, None
    except audio.AudioError as error:
        reason = error.reason
    except (ValueError, OSError) as error:
        reason = str(error)
    return Answer([], [], 0.0), None, reason


def _survey(
    searcher: "Searcher",
    values: flags.FlagValues,
    file: str,
    samples: np.ndarray | None,
    read: Read,
    told: _Told,
) -> "Survey":
    """What one index says to a file, or to samples of standard input."""
    misses = MISSES if values.all else 0
    if samples is not None:
        return searcher.survey([samples], misses=misses)
    options = _reading(values, searcher, told)
    return searcher.survey(searcher.read(file, read=read, **options), misses=misses)


def _standard_input(
    values: flags.FlagValues, searcher: "Searcher", told: _Told, *, block_seconds: float
) -> Iterator[np.ndarray]:
    hasher = searcher.hasher
    return audio.stream_blocks(
        sys.stdin.buffer,
        encoding=values.format,
        rate=values.rate,
        sample_rate=hasher.sample_rate,
        block_seconds=block_seconds,
        minimum_seconds=hasher.shortest_seconds,
        **_reading(values, searcher, told),
    )


def _listen(together: "Together", values: flags.FlagValues, told: _Told) -> tuple[bool, str | None]:
    """Tells what happens in a stream as it goes on; whether anything was found, and the reason why
    it cannot be used.
    """
    from seqhash.index import listen

    searchers, found, error = [*together.searchers.values()], False, None
    rate = searchers[0].hasher.sample_rate
    least = max(searcher.hasher.shortest_seconds for searcher in searchers)
    try:
        blocks = _standard_input(values, searchers[0], told, block_seconds=audio.LIVE_SECONDS)
        ear = together.at_rate(values.false_positive_rate / listen.ASKED)
        events = listen.listen(blocks, ear, sample_rate=rate, least=least)
        for event in events:
            found = True
            _print_event(event, told, as_json=values.json)
    except audio.AudioError as broken:
        error = broken.reason
    except BrokenPipeError:  # of what was printed
        raise
    except (ValueError, OSError) as broken:
        error = str(broken)
    if not found or error or (told.flaws and values.json):
        from seqhash.index.together import Answer

        _print_answer("-", Answer([], [], 0.0), error, values, told)
    return found, error


def _print_event(event: "Event", told: _Told, *, as_json: bool) -> None:
    warnings = told.facts()
    if as_json:
        facts: dict[str, Any] = {"query": "-", "event": event.kind, "time": event.time}
        facts |= {"matches": [event.found.facts()], "error": None, "warnings": warnings}
        line = json.dumps(facts, allow_nan=False)
    else:
        line = "  ".join((_time(event.time), event.kind, *filter(None, _match_cells(event.found))))
    print(_plain(line).rstrip(), flush=True)


def _reading(values: flags.FlagValues, searcher: "Searcher", told: _Told) -> dict[str, Any]:
    """How files are read: options of ``audio.blocks``."""
    channel = _channel(values) or searcher.channel
    return {"channel": channel, "strict": values.strict, "report": told}


def _print_answer(
    file: str, answer: "Answer", error: str | None, values: flags.FlagValues, told: _Told
) -> None:
    if values.json:
        facts: dict[str, Any] = {
            "query": file,
            "matches": [found.facts() for found in answer.matches],
            "error": error,
            "warnings": told.facts(),
        }
        if values.all and error is None:
            facts |= {"misses": [found.facts() for found in answer.misses]}
            facts |= {"needed_score": answer.needed}
        if answer.reach is not None:
            facts |= {"reach": answer.reach}
        print(json.dumps(facts, allow_nan=False), flush=True)
    elif error is not None:
        print(_plain(f"failed {file}: {error}"), file=sys.stderr)
    else:
        said = "" if answer.matches else " no match"
        if answer.reach is not None and answer.reach < ANSWERED:
            said += (
                f"; too short: of its own clips of this length an index answers {answer.reach:.0%}"
            )
        print(f"{_plain(file)}:{said}", flush=True)
        _print_matches(answer.matches)
        if answer.misses:
            print(f"nearest misses (a match has a score of {answer.needed:.2f} or more):")
            _print_matches(answer.misses)


def _print_matches(matches: "Sequence[Found]") -> None:
    header = ("recording", "work", "query", "offset", "bit error rate", "score", "played")
    rows = [_match_cells(match) for match in matches]
    told = [i for i in range(len(header)) if any(row[i] for row in rows)]
    if rows:
        _print_table([header[i] for i in told], ([row[i] for i in told] for row in rows))


def _match_cells(found: "Found") -> tuple[str, ...]:
    match = found.match
    times = f"{_time(match.start)}-{_time(match.end)}"
    name = f"{_short(match.title)} ({match.path})" if match.title else match.path
    name += ", which is gone" if found.gone else ""
    numbers = f"{match.bit_error_rate:.1%}", f"{match.score:.2f}"
    played = compare.played(match.pitch, match.tempo)
    return name, _short(match.work), times, _time(match.offset), *numbers, played


def _try_plot(
    plot: Path,
    values: flags.FlagValues,
    file: str,
    samples: np.ndarray | None,
    matches: "Sequence[Found]",
) -> None:
    """The picture of the best match, or a line that says why there is none: the answer stands
    without it.
    """
    try:
        if not matches:
            raise ValueError("no match")
        best = matches[0]
        hasher = _load_hasher(values, best.source)
        with open_index(best.source, readonly=True) as index:
            if samples is None:
                samples = audio.read(
                    file,
                    sample_rate=hasher.sample_rate,
                    minimum_seconds=hasher.shortest_seconds,
                    channel=_channel(values) or index.channel,
                    report=lambda _: None,  # they were told
                )
            compare.match_figure(
                best.match, index, samples, plot, query=Path(file).name, hasher=hasher
            )
    except (ValueError, OSError) as error:
        print(_plain(f"no picture: {error}"), file=sys.stderr)


def _compare(values: flags.FlagValues, others: list[str]) -> int:
    plot = _png(values)
    if len(others) != 2:
        raise UsageError(f"name two files, got {len(others)}.")
    channel, told = _channel(values) or "first", _Told()
    with decode.Reader() as reader:  # it starts while jax does
        hasher = _load_hasher(values)

        def samples(file: str) -> np.ndarray:
            blocks = reader.blocks(
                file,
                sample_rate=hasher.sample_rate,
                minimum_seconds=hasher.shortest_seconds,
                channel=channel,
                report=told,
            )
            return np.concatenate(list(blocks))

        a, b = map(samples, others)
    found = compare.compare_variants(a, b, hasher=hasher, shifts=hasher.shifts)
    said = compare.verdict(found, code_rate=hasher.code_rate)
    seconds = min(  # of the first, to the end of the last code's sound
        ((found.codes - 1) / hasher.code_rate + hasher.segment_seconds) / found.tempo,
        len(a) / hasher.sample_rate - found.start_a,
        (len(b) / hasher.sample_rate - found.start_b) / found.tempo,
    )
    if values.json:
        numbers = {"verdict": said, "seconds": seconds, **found._asdict()}
        numbers["warnings"] = told.facts()
        del numbers["differences"]
        print(json.dumps({"a": others[0], "b": others[1], **numbers}, allow_nan=False))
    else:
        begins = (found.start_a, found.start_b)
        ends = (found.start_a + seconds, found.start_b + seconds * found.tempo)
        times = ((_time(begin), _time(end)) for begin, end in zip(begins, ends, strict=True))
        cells = [(file, *both) for file, both in zip(others, times, strict=True)]
        _print_table(("file", "from", "to"), cells)
        errors = f"{found.distance} of {found.differences.size} bits in {found.codes} codes"
        print(f"bit error rate {found.bit_error_rate:.2%}: {errors}")
        print(f"any two codes of these files differ in {found.chance:.2%}")
        if played := compare.played(found.pitch, found.tempo):
            print(f"the first is played {played} beside the second")
        limits = f"related from {compare.RELATED:g} on, unrelated below {compare.UNRELATED:g}"
        print(f"{said}: {found.deviations:.1f} deviations above other alignments ({limits})")
    if plot:
        names = " and ".join(Path(file).name for file in others)
        title = f"{names}: {found.bit_error_rate:.1%} of bits differ"
        compare.differences_figure(found, plot, title=title, code_rate=hasher.code_rate)
    return 0


def _completion(values: flags.FlagValues, others: list[str]) -> int:
    _nothing_else(others)
    cases = []
    for name, command in COMMANDS.items():
        defined = flags.FlagValues()
        for define in command.define:
            define(defined)
        flag_names = (f"--{key}{'' if defined[key].boolean else '='}" for key in defined)
        cases.append(f'    {name}) flags="{" ".join(flag_names)} --help" ;;')
    print(COMPLETION.format(cases="\n".join(cases), commands=" ".join(COMMANDS)))
    return 0


def _time(seconds: float) -> str:
    """m:ss.ss, with hours where there are some."""
    hundredths = round(abs(seconds) * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, within = divmod(minutes, 60)
    text = f"{hours}:{within:02}" if hours else f"{minutes}"
    return f"{'-' if seconds < 0 and hundredths else ''}{text}:{rest // 100:02}.{rest % 100:02}"


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [list(header), *([_plain(cell) for cell in row] for row in rows)]
    print(tables.text(lines))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 3]}..."


def _plain(text: str) -> str:
    """Without what would break a line or move the cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


# For bash, and for zsh by its bashcompinit. What is no command and no flag is a file.
COMPLETION = """\
_seqhash() {{
  local flags=""
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  COMPREPLY=()
  if [[ $COMP_CWORD == 1 ]]; then
    COMPREPLY=($(compgen -W "{commands} help --version" -- "$2"))
  elif [[ "$2" == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$2"))
    [[ "${{COMPREPLY[0]}}" == *= ]] && compopt -o nospace 2>/dev/null
  fi
  return 0
}}
complete -o default -F _seqhash seqhash"""

COMMANDS = {
    "add": Command(
        "--index=FILE PATH...",
        "Add files, folders or manifests (.csv); what is there already is passed over",
        (_index_flag, _hasher_flag, _channel_flag, _add_flags),
        _add,
        "--index=music.index ~/Music",
        "Files of a folder, by their names: " + ", ".join(corpus.SUFFIXES) + ".\n"
        "Links are followed once. Recordings follow files that were moved, renamed, retagged or "
        "replaced.\n"
        "An interrupted run is continued by the same command. "
        "The last line counts every file.\n"
        "Exit status: 3 if no file could be used; with --strict, if one could not.",
    ),
    "remove": Command(
        "--index=FILE ID|PATH...",
        "Remove recordings by id, path or folder",
        (_index_flag,),
        _remove,
        "--index=music.index ~/Music/Podcasts",
    ),
    "list": Command(
        "--index=FILE",
        "List the recordings",
        (_index_flag, _json_flag),
        _list,
        "--index=music.index",
    ),
    "info": Command(
        "--index=FILE",
        "Show the index's size and hasher, and what it can answer",
        (_index_flag, _hasher_flag, _json_flag, _answers_flag),
        _info,
        "--index=music.index --answers",
    ),
    "merge": Command(
        "--index=FILE OTHER...",
        "Add what other indexes hold",
        (_index_flag,),
        _merge,
        "--index=music.index other.index",
    ),
    "verify": Command(
        "--index=FILE",
        "Check every byte; list the problems",
        (_index_flag,),
        _verify,
        "--index=music.index",
        "Exit status: 1 where there are problems.",
    ),
    "compact": Command(
        "--index=FILE",
        "Give back the space of removed recordings",
        (_index_flag,),
        _compact,
        "--index=music.index",
    ),
    "export": Command(
        "--index=FILE --to=FILE",
        "Write the codes as a FAISS binary index, npz or Parquet",
        (_index_flag, _to_flag),
        _export,
        "--index=music.index --to=codes.npz",
    ),
    "import": Command(
        "--index=FILE NPZ...",
        "Add precomputed codes",
        (_index_flag,),
        _import,
        "--index=music.index codes.npz",
    ),
    "identify": Command(
        "--index=FILE FILE...",
        "Say which recordings a file holds, and where",
        (_indexes_flag, _hasher_flag, _channel_flag, _json_flag, _plot_flag, _identify_flags),
        _identify,
        "--index=music.index clip.mp3",
        "FILE - is standard input: a file with a header, else raw mono samples. It is answered as "
        "it goes on:\n"
        "a line each time a match begins, changes or ends, some 3 s later at most.\n"
        "Exit status: 0 answers, 1 no match, 3 a file that failed.\n"
        "offset: seconds of the recording at the start of what was found in the query.",
    ),
    "compare": Command(
        "A B",
        "Align two files by their codes; say whether they are the same, related or unrelated",
        (_hasher_flag, _channel_flag, _json_flag, _plot_flag),
        _compare,
        "one.wav other.mp3",
    ),
    "completion": Command(
        "",
        "Print what completes commands, flags and files in bash and zsh",
        (),
        _completion,
        ">> ~/.bashrc",
        "In zsh, autoload -U bashcompinit && bashcompinit comes before it.",
    ),
}


if __name__ == "__main__":
    sys.exit(main())
