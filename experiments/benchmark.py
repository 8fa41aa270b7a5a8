r"""Speed against named peers and the machine's limit, as ratios measured in one run.

    python -m experiments.benchmark mfcc                # librosa, python_speech_features; one core
    python -m experiments.benchmark mfcc --corpora=DIR  # the largest error over all recordings, too
    python -m experiments.benchmark bands               # librosa's mel spectrogram, our MFCC
    python -m experiments.benchmark files --audio=M.csv # files to codes; Chromaprint's fpcalc
    python -m experiments.benchmark train               # PyTorch's LSTM, tied weights; GEMM peak
    python -m experiments.benchmark search              # FAISS, C loops for the limit; one core
    python -m experiments.benchmark search --all_cores  # and on all cores
    python -m experiments.benchmark index --audio=M.csv # 9.6 million codes; stages of adding audio
    python -m experiments.benchmark identify            # a 3 s clip among 10 million codes

Every system runs in processes of its own (pinned to one core, or on all; those of search share
one), in turn, for several rounds; medians are quoted. PyTorch, FAISS and python_speech_features are
in the extras dev and test; what is not installed is left out, and said.

Expect 1 to 5 minutes each (search on all cores: 8), and on cores with AVX-512 2.2 x librosa and 8.7
x python_speech_features (mfcc), 1.6 x librosa (bands), 1.2 x fpcalc (files), 1.4 to 1.6 x PyTorch
(train), 2 to 9 x FAISS (search; 27 x by the progressive scan), 12 hours of audio a minute (index).
docs/performance.md has the tables, with what the machine could do.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from absl import flags

from seqhash import corpus, parallel, tables

from . import script

_ROUNDS = flags.DEFINE_integer("rounds", 5, "times that every system is measured", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 120.0, "length of the audio (mfcc, bands)", lower_bound=2)
_STEPS = flags.DEFINE_integer("steps", 48, "train steps of a measurement (train)", lower_bound=16)
_CORPORA = flags.DEFINE_string(
    "corpora", None, "folder of manifests to measure the MFCC error on (mfcc)"
)
_AUDIO = flags.DEFINE_string(
    "audio", None, "manifest or folder of recordings to add (index) or to hash (files)"
)
_ALL_CORES = flags.DEFINE_bool("all_cores", False, "also measure on all cores (search)")
_QUICK = flags.DEFINE_bool("quick", False, "small, to see whether it runs (train, search, index)")
_OUTPUT = flags.DEFINE_string("output", None, "also write everything as JSON to this file")
_SYSTEM = flags.DEFINE_string(
    "system", None, "measure this one system in this process (used inside)"
)

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
GOALS = {
    "librosa": "reach 2, aim 3",
    "python_speech_features": "reach 6",
    "torch, one core": "reach 1.5",
    "torch, one core, huge pages": "reach 1 against ours with huge pages",
}


def main(benchmark: str) -> int:
    """Runs one benchmark, or (with --system) one measurement of it."""
    if _SYSTEM.value:
        print(json.dumps(SYSTEMS[_SYSTEM.value]()))
        return 0
    result = BENCHMARKS[benchmark]()
    command = script.command("benchmark")
    if _OUTPUT.value:
        script.write_json(Path(_OUTPUT.value), {"command": command} | result)
    return 0


# --------------------------------------------------------------------------------------------- mfcc


def _benchmark_mfcc() -> dict[str, Any]:
    names = ["ours, stream", "ours, jitted mfcc", "librosa", "python_speech_features"]
    result = _front_ends("mfcc", {name: name for name in names})
    if _CORPORA.value:
        result["errors"] = _mfcc_errors(Path(_CORPORA.value))
    return result


def _benchmark_bands() -> dict[str, Any]:
    systems = {"ours": "ours, bands", "our MFCC": "ours, stream"}
    return _front_ends("bands", systems | {"librosa's mel spectrogram": "librosa, melspectrogram"})


def _benchmark_files() -> dict[str, Any]:
    if _AUDIO.value is None:
        raise ValueError("files needs --audio, a manifest or a folder of recordings.")
    return _front_ends(
        "files",
        {
            "ours": "ours, files",
            "fpcalc -raw": "fpcalc",
            "fpcalc -raw, without its start": "fpcalc, started",
        },
    )


def _front_ends(benchmark: str, systems: dict[str, str]) -> dict[str, Any]:
    """Rates of front ends, of which the first is ours."""
    rates = _rounds(benchmark, {name: (system, {}, True) for name, system in systems.items()})
    ours = next(iter(rates.values()))
    print("\nAudio seconds per CPU second, one core\n")
    table = [["system", "median", "ours is faster by", "goal"]]
    for name, rate in rates.items():
        ratio = ours and rate and ours / rate
        table.append([name, _shown(rate), _shown(ratio, 2), GOALS.get(name, "")])
    print(tables.markdown(table))
    return {"rates": rates, "machine": _machine()}


def _audio(sample_rate: int) -> np.ndarray:
    """Noise under slow swells: no silence, no shortcuts."""
    samples = round(_SECONDS.value * sample_rate)
    swell = 0.6 + 0.4 * np.sin(np.arange(samples) / 5_000)
    return (0.1 * swell * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)


def _audio_rate(function: Callable[[np.ndarray], Any], *, sample_rate: int = 16_000) -> float:
    """Audio seconds per CPU second of this process, the best of three after one to warm up."""
    audio, times = _audio(sample_rate), []
    function(audio)
    for _ in range(3):
        start = time.process_time()
        function(audio)
        times.append(time.process_time() - start)
    return _SECONDS.value / min(times)


def _mfcc_stream() -> float:
    from seqhash import mfcc
    from seqhash.config import MfccConfig

    return _audio_rate(lambda audio: mfcc.stream([audio], config=MfccConfig()))


def _mfcc_jitted() -> float:
    import functools

    import jax

    from seqhash import mfcc
    from seqhash.config import MfccConfig

    jitted = jax.jit(functools.partial(mfcc.mfcc, config=MfccConfig()))
    return _audio_rate(lambda audio: jitted(audio).block_until_ready())


def _mfcc_librosa() -> float:
    import librosa

    def same_grid(audio: np.ndarray) -> np.ndarray:
        return librosa.feature.mfcc(
            y=audio,
            sr=16_000,
            n_mfcc=13,
            n_fft=512,
            win_length=400,
            hop_length=160,
            n_mels=26,
            center=False,
        )

    return _audio_rate(same_grid)


def _mfcc_psf() -> float | None:
    try:
        import python_speech_features
    except ImportError:
        return None
    return _audio_rate(
        lambda audio: python_speech_features.mfcc(audio.astype(np.float64), 16_000, nfft=512)
    )


def _bands_ours() -> float:
    from seqhash import bands
    from seqhash.config import BandsConfig

    config = BandsConfig()
    return _audio_rate(
        lambda audio: bands.stream([audio], config=config), sample_rate=config.sample_rate
    )


def _bands_librosa() -> float:
    import librosa

    from seqhash.config import BandsConfig

    config = BandsConfig()

    def same_grid(audio: np.ndarray) -> np.ndarray:
        return librosa.feature.melspectrogram(
            y=audio,
            sr=config.sample_rate,
            n_fft=config.fft_length,
            win_length=config.frame_length,
            hop_length=config.frame_step,
            n_mels=config.bands,
            center=False,
        )

    return _audio_rate(same_grid, sample_rate=config.sample_rate)


def _recordings() -> tuple[list[str], float]:
    """Paths of the recordings, and their seconds."""
    paths = [str(one.path) for one in corpus.recordings(_AUDIO.value or "")]
    return paths, sum(soundfile.info(path).duration for path in paths)


def _files_ours() -> float:
    """Seconds of audio decoded, resampled and hashed per CPU second, after a round to compile."""
    import seqhash
    from seqhash import audio

    hasher, (paths, seconds), start = seqhash.load_hasher("semitone-32"), _recordings(), 0.0
    for _ in range(2):
        start = time.process_time()
        for path in paths:
            hasher.hash_blocks(audio.blocks(path, sample_rate=hasher.sample_rate))
    return seconds / (time.process_time() - start)


def _files_fpcalc(*, start: bool) -> float | None:
    """The same of Chromaprint's command, a process for each file, with or without what its start
    takes. (Asked for several files at once it ends at the first that it complains of.)
    """
    if shutil.which("fpcalc") is None:
        return None
    paths, seconds = _recordings()

    def used(*arguments: str) -> float:
        before = os.times()
        subprocess.run(["fpcalc", *arguments], capture_output=True, check=False)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])  # CPU seconds of children

    spent = [
        used("-raw", "-length", "0", path) - (0 if start else used("-version")) for path in paths
    ]
    return seconds / sum(spent)


def _mfcc_errors(folder: Path) -> dict[str, Any]:
    """The largest error against python_speech_features over every recording of every manifest below
    a folder.
    """
    import python_speech_features

    from seqhash import audio, corpus, mfcc
    from seqhash.config import MfccConfig

    config, errors = MfccConfig(), {}
    print("\nLargest error against python_speech_features 0.6\n")
    table = [["corpus", "recordings", "absolute", "relative to max(abs(reference), 1)"]]
    for manifest in sorted(folder.glob("*/manifest.csv")):
        absolute, relative, count = 0.0, 0.0, 0
        for recording in corpus.recordings(manifest):
            samples = audio.read(recording.path, sample_rate=16_000)
            expected = python_speech_features.mfcc(samples.astype(np.float64), 16_000, nfft=512)
            error = np.abs(mfcc.stream([samples], config=config) - expected)
            absolute = max(absolute, float(error.max()))
            relative = max(relative, float((error / np.maximum(np.abs(expected), 1)).max()))
            count += 1
        table.append([manifest.parent.name, str(count), f"{absolute:.1e}", f"{relative:.1e}"])
        errors[manifest.parent.name] = {
            "recordings": count,
            "absolute": absolute,
            "relative": relative,
        }
    print(tables.markdown(table, left=1))
    return errors


# -------------------------------------------------------------------------------------------- train


def _benchmark_train() -> dict[str, Any]:
    systems = {
        "ours, one core": ("ours", {}, True),
        "torch, one core": ("torch", {}, True),
        "ours, one core, huge pages": ("ours", HUGE_PAGES, True),
        "torch, one core, huge pages": ("torch", HUGE_PAGES, True),
        "ours, all cores": ("ours", {}, False),
        "torch, all cores": ("torch", {}, False),
        "GEMM, jax (GFLOP/s a core)": ("gemm jax", {}, True),
        "GEMM, torch (GFLOP/s a core)": ("gemm torch", {}, True),
    }
    rates = _rounds("train", systems)
    peak = max(rate for name, rate in rates.items() if name.startswith("GEMM") and rate)
    flop = _step_flop()
    print(
        f"\nTrain step, batch {_batch_size()}, {flop / 1e6:.1f} MFLOP a segment; "
        f"matrix-multiply peak {peak:.0f} GFLOP/s a core\n"
    )
    table = [["system", "segments/s, median", "share of the peak", "ours is faster by", "goal"]]
    for name, rate in rates.items():
        if name.startswith("GEMM"):
            continue
        cores = 1 if "one core" in name else parallel.cores()
        ours = rates[name.replace("torch", "ours")]
        share = rate and 100 * rate * flop / (peak * 1e9 * cores)
        ratio = ours and rate and ours / rate
        measured = [_shown(rate), f"{_shown(share)} %", _shown(ratio, 2)]
        table.append([name, *measured, GOALS.get(name, "")])
    print(tables.markdown(table))
    print(
        "\nGoal of ours: half of the peak, aim 60 %. "
        "Products that rematerialisation repeats are not counted."
    )
    return {"rates": rates, "flop": flop, "peak": peak, "machine": _machine()}


def _step_flop() -> int:
    """Useful FLOP of a train step a segment: forward once, backward twice as much."""
    from seqhash.config import Config

    config = Config()
    hidden, coeffs, frames = config.model.hidden_size, config.mfcc.coeffs, config.segment.frames
    encoder, decoder = (
        2 * 4 * hidden * (hidden + coeffs),
        2 * 4 * hidden * hidden,
    )  # the decoder is fed nothing
    return 3 * frames * (encoder + decoder + 2 * hidden * coeffs)


def _batch_size() -> int:
    return 16 if _QUICK.value else 128


def _train_ours() -> float:
    import jax

    from seqhash import batches, corpus, features, train
    from seqhash.config import Config, override

    parallel.use_all_cores(128)
    batch, steps = _batch_size(), _STEPS.value + 32
    config = override(
        Config(), {"train.validation_fraction": 0.0, "train.epochs": 1, "train.batch_size": batch}
    )
    frames = (
        np.random.default_rng(0).standard_normal((25 * batch * steps + 75, 13)).astype(np.float32)
    )
    recording = corpus.Recording("noise", Path("noise.wav"), "", "", "", "", {})
    dataset = batches.make_dataset(features.Store((recording,), (frames,), {}, ()), config=config)
    marks = []
    for progress in train.fit(config, dataset, progress=False):
        jax.block_until_ready(progress.state)
        marks.append((time.perf_counter(), int(progress.state.step)))
    warm = next(i for i, (_, step) in enumerate(marks) if step >= 16)
    (start, first), (end, last) = (
        marks[warm],
        marks[-2],
    )  # the last mark has the epoch's evaluation in it
    return (last - first) * batch / (end - start)


def _train_torch() -> float | None:
    try:
        import torch
    except ImportError:
        return None
    torch.manual_seed(0)
    torch.set_num_threads(parallel.cores())
    lstm, readout = torch.nn.LSTM(13, 128, batch_first=True), torch.nn.Linear(128, 13)
    parameters = [*lstm.parameters(), *readout.parameters()]
    optimizer = torch.optim.Adam(parameters, 3e-3)
    data = torch.randn(16, _batch_size(), 100, 13)

    def step(segments: Any) -> None:
        _, (hidden, _) = lstm(segments)
        outputs, _ = lstm(torch.zeros_like(segments), (hidden, torch.zeros_like(hidden)))
        loss = (readout(outputs).flip(1) - segments).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()

    for i in range(4):
        step(data[i])
    start = time.perf_counter()
    for i in range(_STEPS.value):
        step(data[i % 16])
    return _STEPS.value * _batch_size() / (time.perf_counter() - start)


def _gemm(convert: Callable[[np.ndarray], Any], multiply: Callable[[Any, Any], Any]) -> float:
    """GFLOP/s of float32 products, the best of several shapes and repeats."""
    best, rng = 0.0, np.random.default_rng(0)
    for m, k, n in ((1536, 1536, 1536), (1024, 1024, 1024), (4096, 512, 512), (512, 128, 512)):
        a, b = (
            convert(rng.standard_normal(shape).astype(np.float32)) for shape in ((m, k), (k, n))
        )
        multiply(a, b)
        for _ in range(8):
            start = time.perf_counter()
            multiply(a, b)
            best = max(best, 2 * m * k * n / (time.perf_counter() - start) / 1e9)
    return best


def _gemm_jax() -> float:
    import jax
    import jax.numpy as jnp

    product = jax.jit(jnp.matmul)
    return _gemm(jnp.asarray, lambda a, b: product(a, b).block_until_ready())


def _gemm_torch() -> float | None:
    try:
        import torch
    except ImportError:
        return None
    return _gemm(torch.from_numpy, lambda a, b: a @ b)


# ------------------------------------------------------------------------------------------- search


def _benchmark_search() -> dict[str, Any]:
    from . import benchmark_search

    result = {
        "one core": _measure("search", "search, one core", benchmark_search.ENVIRONMENT, True)
    }
    benchmark_search.show(result["one core"])
    if _ALL_CORES.value:
        result["all cores"] = _measure(
            "search", "search, all cores", benchmark_search.ENVIRONMENT, False
        )
        benchmark_search.show(result["all cores"])
    return result | {"machine": _machine()}


def _search(*, sublinear: bool) -> dict[str, Any]:
    from . import benchmark_search

    return benchmark_search.measure(rounds=_ROUNDS.value, quick=_QUICK.value, sublinear=sublinear)


def _benchmark_index() -> dict[str, Any]:
    from . import benchmark_index

    result = benchmark_index.measure(
        rounds=_ROUNDS.value, quick=_QUICK.value, recordings=_AUDIO.value
    )
    benchmark_index.show(result)
    return result | {"machine": _machine()}


def _benchmark_identify() -> dict[str, Any]:
    from . import benchmark_identify

    result = benchmark_identify.measure(rounds=_ROUNDS.value, quick=_QUICK.value)
    print(benchmark_identify.table(result))
    return {"clips": result, "machine": _machine()}


# ------------------------------------------------------------------------------------------- inside

BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "mfcc": _benchmark_mfcc,
    "bands": _benchmark_bands,
    "files": _benchmark_files,
    "train": _benchmark_train,
    "search": _benchmark_search,
    "index": _benchmark_index,
    "identify": _benchmark_identify,
}
SYSTEMS: dict[str, Callable[[], Any]] = {
    "ours, stream": _mfcc_stream,
    "ours, jitted mfcc": _mfcc_jitted,
    "librosa": _mfcc_librosa,
    "python_speech_features": _mfcc_psf,
    "ours, bands": _bands_ours,
    "librosa, melspectrogram": _bands_librosa,
    "ours, files": _files_ours,
    "fpcalc": lambda: _files_fpcalc(start=True),
    "fpcalc, started": lambda: _files_fpcalc(start=False),
    "ours": _train_ours,
    "torch": _train_torch,
    "gemm jax": _gemm_jax,
    "gemm torch": _gemm_torch,
    "search, one core": lambda: _search(sublinear=True),
    "search, all cores": lambda: _search(sublinear=False),
}


def _rounds(
    benchmark: str, systems: dict[str, tuple[str, dict[str, str], bool]]
) -> dict[str, float | None]:
    """Median rate of each system (system, environment, pinned to one core), measured in turn in
    fresh processes.
    """
    rates: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(_ROUNDS.value):
        for name, (system, environment, pinned) in systems.items():
            rate = _measure(benchmark, system, environment, pinned)
            print(f"round {number + 1}/{_ROUNDS.value}  {name}: {_shown(rate)}", flush=True)
            if rate is not None:
                rates[name].append(rate)
    return {name: statistics.median(values) if values else None for name, values in rates.items()}


def _measure(benchmark: str, system: str, environment: dict[str, str], pinned: bool) -> Any:
    """What a fresh process prints for a system; its progress and warnings pass through."""
    values = {"seconds": _SECONDS, "steps": _STEPS, "rounds": _ROUNDS, "quick": _QUICK}
    options = [f"--{name}={flag.value}" for name, flag in values.items()]
    options += [f"--audio={_AUDIO.value}"] if _AUDIO.value else []
    pin = (lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})) if pinned else None
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"{__package__}.benchmark",
            benchmark,
            f"--system={system}",
            *options,
        ],
        env=os.environ | environment,
        preexec_fn=pin,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"{system} failed, see above.")
    return json.loads(done.stdout.splitlines()[-1])


def _machine() -> dict[str, Any]:
    from seqhash import evaluate

    info = Path("/proc/cpuinfo")
    models = [
        line.split(":")[1].strip()
        for line in info.read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": parallel.cores(),
        **evaluate.versions(),
    }


def _shown(value: float | None, digits: int = 0) -> str:
    return "not installed" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    script.run(main, one_of=list(BENCHMARKS))
