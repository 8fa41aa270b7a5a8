"""Installs the package ``seqhash``; the tools' settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
FACE = (ROOT / "seqhash" / "__init__.py").read_text(encoding="utf-8")

setup(
    name="seqhash",
    version=re.search(r'^__version__ = "(.+)"$', FACE, re.MULTILINE)[1],
    description="Learned audio hashing: a sequence-to-sequence autoencoder whose bits keep "
    "distance, in JAX.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The scripts lie beside the package in a clone, and inside it once they are installed.
    packages=[*find_packages(include=["seqhash", "seqhash.*"]), "seqhash.experiments"],
    package_dir={"seqhash.experiments": "experiments"},
    package_data={
        "seqhash.experiments": ["*.c"],
        "seqhash": ["py.typed", "output.schema.json", "hashers/*/*"],
        "seqhash.robustness": ["templates/*"],
        "seqhash.songbook": ["data/*"],
    },
    python_requires=">=3.11",
    entry_points={"console_scripts": ["seqhash=seqhash.cli:main"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "jaxtyping>=0.3.3",
        "numpy>=2.0",
        "scipy>=1.14",
        "librosa>=0.11",
        "scikit-learn>=1.5",
        "absl-py>=2.1",
        "soundfile>=0.13",
        "soxr>=0.5",
        "matplotlib>=3.9",
        "jinja2>=3.1",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda": ["jax[cuda12]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "audio": ["av>=14"],
        "docs": ["mkdocs-material>=9.5", "mdx-truly-sane-lists>=1.3", "mkdocstrings[python]>=0.27"],
        "test": [
            "av>=14",
            "pytest>=8",
            "pytest-xdist>=3.7",
            "python_speech_features>=0.6",
            "hypothesis>=6.100",
            "jsonschema>=4.18",
            "beartype>=0.20",
            "ruff>=0.14",
            "mypy>=1.13",
            "nbclient>=0.10",
            "ipykernel>=6.29",
        ],
        "dev": ["pre-commit>=4", "build>=1.2", "torch>=2.9", "faiss-cpu>=1.15", "pyarrow>=18"],
        "peers": ["audfprint2>=0.1.2", "imageio-ffmpeg>=0.5"],
    },
)
