"""What runs here is also lowered for accelerators that are not here: code that none of them could
compile fails. Nothing runs there, so numbers and speed are not tested."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from seqhash import batches, codes, equivariant, export, pairs, train
from seqhash.config import Config, override
from seqhash.search import hamming, kernels, planar, plans
from tests.test_train import small_store

PLATFORMS = ("cuda", "tpu")


def lowered(program, *arguments, **static):
    """Zeros of the program's results, once it is lowered for each platform."""
    traced = program.trace(*arguments, **static)
    for platform in PLATFORMS:
        assert "stablehlo" in traced.lower(lowering_platforms=(platform,)).as_text()
    return jax.tree.map(lambda result: jnp.zeros(result.shape, result.dtype), traced.out_info)


@pytest.fixture
def lowering(monkeypatch):
    """Lowers the jitted programs of a module where they would be run; -> names of those that were
    asked for."""

    def inside(module) -> set[str]:
        asked = set()

        def instead(name, program):
            def spy(*arguments, **static):
                if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)):
                    return program(*arguments, **static)  # a part of another program
                asked.add(name)
                return lowered(program, *arguments, **static)

            return spy

        jitted = jax.stages.Wrapped
        programs = {name: it for name, it in vars(module).items() if isinstance(it, jitted)}
        assert programs
        for name, program in programs.items():
            monkeypatch.setattr(module, name, instead(name, program))
        return asked

    return inside


def test_hashing(lowering):
    hasher, asked = export.load_hasher("paper-128"), lowering(codes)
    clip = np.random.default_rng(0).uniform(-1, 1, 3 * hasher.sample_rate).astype(np.float32)
    cepstra = np.zeros((300, hasher.config.mfcc.coeffs), np.float32)
    for words in (
        hasher.hash_samples(clip),
        hasher._hash_stacked([clip, clip[:20_000]])[0],  # hash_many's, where there is no CPU
        hasher.hash_cepstra(cepstra),
    ):
        assert words.dtype == np.uint32
    assert len(hasher.states_of(cepstra))
    assert len(asked) == 4


@pytest.mark.slow
@pytest.mark.parametrize("resident_bytes", [0, 1 << 30])
def test_the_training_step(resident_bytes):
    config = override(export.load_hasher("paper-128").config, {"train.batch_size": 32})
    dataset = batches.make_dataset(small_store(), config=config)
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",))
    next_source, batch_at, spec = batches.sources(dataset, config, mesh, resident_bytes)
    stretch = train.make_stretch(config, mesh, steps=2, batch_at=batch_at, source_spec=spec)
    source = next_source(batches.epoch_order(dataset, 0, config), 0)
    lowered(stretch, train.init_state(config, steps=2), np.int32(1), source)


@pytest.mark.slow
def test_what_is_measured_beside_training(lowering):
    config = override(export.load_hasher("paper-128").config, {"train.batch_size": 32})
    dataset, asked = batches.make_dataset(small_store(), config=config), lowering(train)
    params = train.init_state(config, steps=2).params
    train.mean_loss(params, dataset.frames, dataset.training, config=config)
    train.training_medians(dataset, params, config=config)
    assert len(asked) == 2


# One by one, tiled and looped scans, whole and of a part; codes of 32 to 512 bits; one query or
# several; on a CPU and not, with and without its vector popcount; one device or two.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "n", "queries", "devices"),
    [(1, 1, 1, 1), (4, 9, 1, 1), (4, 9, 100, 2), (4, 40, 9, 1), (16, 1, 9, 1)],
)
def test_every_shape_of_a_scan(monkeypatch, words, n, queries, devices):
    starts = np.arange(0, 150_001, 500)
    mesh = Mesh(np.asarray(jax.devices()[:2]), (planar.AXIS,)) if devices > 1 else None
    here = planar.build(np.zeros((starts[-1], words), np.uint32), starts, mesh=mesh)
    program = jax.jit(kernels.nearest, static_argnames=kernels.STATIC)
    scans, k = set(), 10
    for database in (here, dataclasses.replace(here, platform="gpu")):
        for vectors in (True, False):
            monkeypatch.setattr(plans, "counts_vectors", lambda vectors=vectors: vectors)
            for partial in {False, plans.has_part(database, n)}:
                scans.add((plans.choose(database, n, k, queries=queries, partial=partial), partial))
    for plan, partial in scans:
        asked = plans.padded(np.zeros((queries, n, words), np.uint32), plan)
        lowered(
            program,
            *(here.planes, here.left, hamming._groups(here, plan), *asked, np.int32(n)),
            plan=plan,
            selected=plans.selected_blocks(k),
            ordered=not partial,  # as it is asked again
            keep=plans.kept(k),
            mesh=mesh,
        )
    assert len(scans) > 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kernel", "lstm"])
def test_the_step_of_training_by_pairs(kind):
    changes = {"front_end": "bands", "kind": kind, "hidden": 4}
    config = override(Config(), {f"encoder.{name}": value for name, value in changes.items()})
    config = override(config, {"pairs.batch_size": 4})
    samples = np.random.default_rng(0).uniform(-1, 1, 24_000).astype(np.float32)
    material = pairs.make_material([samples], [samples], [samples[:9]], config=config)
    params = equivariant.init_params(jax.random.key(0), config)
    state = (params, pairs.make_optimizer(config.pairs).init(params))
    (moved, _), loss = lowered(
        pairs._stretch,
        state,
        material,
        key=jax.random.key(0),
        step=np.int32(0),
        count=np.int32(1),
        config=config,
    )
    assert jax.tree.structure(moved) == jax.tree.structure(params)
    assert loss.shape == ()
