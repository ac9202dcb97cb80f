"""Streaming moments and quantiles agree with numpy, in any order of merging and on any type."""

from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conspec.lens.write import class_statistics as written
from conspec.specs.errors import BadUsage
from conspec.verifier.probability.moments import (
    STRIDE,
    By,
    Moments,
    class_statistics,
    moments_of,
    stream_moments,
)
from conspec.verifier.probability.quantiles import QuantileSketch, stream_quantiles
from conspec.verifier.probability.shards import Shard, Skipped, chunks, shards_of
from tests import bundles

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def stream(rows: int, size: int, seed: int, classes: int = 4) -> Shard:
    """Rows with means that differ by class; labels and predictions may be −1."""
    chance = np.random.default_rng(seed)
    labels, predicted = chance.integers(-1, classes, (2, rows))
    z = chance.normal(size=(rows, size)) + 5.0 * labels[:, None]
    return Shard(torch.from_numpy(z), torch.from_numpy(labels), torch.from_numpy(predicted))


def parts_of(shard: Shard, cuts: list[int]) -> list[Shard]:
    ends = sorted(cut % (len(shard.embeddings) + 1) for cut in cuts)
    pieces = zip([0, *ends], [*ends, len(shard.embeddings)], strict=True)
    return [
        Shard(*(part[a:b] for part in (shard.embeddings, shard.labels, shard.predicted)))  # type: ignore[index]
        for a, b in pieces
    ]


def of(shard: Shard, by: By, full: bool) -> Moments:
    (chunk,) = chunks([shard], max(1, len(shard.embeddings)), "cpu")
    return moments_of(chunk, by, full=full)


def same(one: Moments, other: Moments) -> None:
    assert one.keys.tolist() == other.keys.tolist()
    assert one.count.tolist() == other.count.tolist()
    assert torch.equal(one.minimum, other.minimum)
    assert torch.equal(one.maximum, other.maximum)
    assert (one.outside, one.skipped) == (other.outside, other.skipped)
    assert torch.allclose(one.mean, other.mean, rtol=1e-13, atol=1e-13)
    assert torch.allclose(one.squares, other.squares, rtol=1e-12, atol=1e-11)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 60), st.sampled_from(By), st.booleans(), st.integers(0, 999),
    st.lists(st.integers(0, 99), max_size=4), st.randoms(use_true_random=False),
)  # fmt: skip
def test_merging_is_associative_and_commutative(
    rows: int, by: By, full: bool, seed: int, cuts: list[int], chance: object
) -> None:
    whole = stream(rows, 3, seed)
    parts = [of(part, by, full) for part in parts_of(whole, cuts) if len(part.embeddings)]
    expected = of(whole, by, full)
    same(reduce(Moments.merged, parts), expected)
    chance.shuffle(parts)  # type: ignore[attr-defined]
    while len(parts) > 1:  # a random tree
        a, b = parts.pop(), parts.pop(chance.randrange(len(parts)))  # type: ignore[attr-defined]
        parts.append(a.merged(b))
    same(parts[0], expected)


@pytest.mark.parametrize("by", By)
def test_cells_are_those_of_numpy(by: By) -> None:
    shard = stream(500, 3, 1)
    z, label, predicted = (
        np.asarray(part) for part in (shard.embeddings, shard.labels, shard.predicted)
    )
    found = stream_moments(parts_of(shard, [30, 200, 201]), by, full=True)
    keys = {
        By.ALL: np.zeros(500, int),
        By.LABEL: label,
        By.CORRECT: np.where(label == predicted, label, -1),
        By.LABEL_AND_PREDICTION: np.where((label >= 0) & (predicted >= 0),
                                          label * STRIDE + predicted, -1),
    }[by]  # fmt: skip
    assert found.keys.tolist() == sorted(set(keys[keys >= 0].tolist()))
    assert found.outside == (keys < 0).sum()
    assert int(found.count.sum()) + found.outside == 500
    for place, key in enumerate(found.keys.tolist()):
        own = z[keys == key]
        np.testing.assert_allclose(found.mean[place], own.mean(0), rtol=1e-13)
        np.testing.assert_allclose(found.variance[place], own.var(0), rtol=1e-11, atol=1e-25)
        expected = np.cov(own.T, bias=True) if len(own) > 1 else np.zeros((3, 3))
        np.testing.assert_allclose(found.covariance[place], expected, rtol=1e-10, atol=1e-12)
        assert found.minimum[place].tolist() == own.min(0).tolist()
        assert found.maximum[place].tolist() == own.max(0).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulation_is_in_double_precision(dtype: torch.dtype) -> None:
    # Sums of squares would cancel: the deviation is a small part of the mean.
    z = (torch.randint(0, 2, (20_000, 4), generator=torch.Generator().manual_seed(2)) + 128).to(
        dtype
    )
    found = stream_moments([Shard(z)])
    exact = z.double().numpy()
    assert found.mean.dtype == torch.float64
    np.testing.assert_allclose(found.mean[0], exact.mean(0), rtol=1e-15)
    np.testing.assert_allclose(found.variance[0], exact.var(0), rtol=1e-11)


def test_a_far_mean_does_not_cancel() -> None:
    z = 1e8 + torch.arange(10_000.0, dtype=torch.float64)[:, None] % 2
    variance = stream_moments(shards_of(z)).variance
    assert variance.tolist() == [[pytest.approx(0.25, rel=1e-12)]]


def test_the_same_sharding_gives_the_same_bits() -> None:
    shard = stream(5000, 3, 4)
    one, other = (stream_moments(parts_of(shard, [7, 90]), By.LABEL) for _ in "ab")
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.squares, other.squares)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_not_finite_are_counted_and_named(dtype: torch.dtype) -> None:
    z = torch.ones(30, 2, dtype=dtype)
    z[4, 0], z[5, 1], z[20] = torch.nan, torch.inf, -torch.inf
    found = stream_moments([Shard(z[:5]), Shard(z[5:])])
    assert found.skipped == Skipped(3, (4, 5, 20))
    assert found.count.tolist() == [27]
    assert found.mean.tolist() == [[1.0, 1.0]]
    sketch = stream_quantiles([Shard(z[:5]), Shard(z[5:])], width=4)
    assert (sketch.count, sketch.skipped) == (27, Skipped(3, (4, 5, 20)))


def test_only_the_first_are_named() -> None:
    found = stream_moments([Shard(torch.full((30, 1), torch.nan))])
    assert found.skipped == Skipped(30, tuple(range(10)))
    assert found.count.tolist() == []


def test_statistics_of_a_lens_from_a_stream(tmp_path: Path) -> None:
    lens = bundles.write_random(tmp_path / "lens", 3, signed=True)
    e = lens.embeddings
    train = ~e.heldout
    wrong = e.label.copy()
    wrong[::5] = (wrong[::5] + 1) % 3  # some are classified wrongly
    arrays = (e.z[train], e.label[train], wrong[train])
    parts = [Shard(*(array[part] for array in arrays)) for part in (slice(11), slice(11, None))]
    found = class_statistics(stream_moments(parts, By.CORRECT, full=True), 3)
    expected = written(type(e)(e.z, e.label, wrong, e.heldout, e.vlm, e.directions,
                               e.class_directions), 3)  # fmt: skip
    assert found.count.tolist() == expected.count.tolist()
    for name in ("mean", "std", "minimum", "maximum"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12)
    assert found.axes is not None
    assert expected.axes is not None
    for mine, theirs in zip(found.axes, expected.axes, strict=True):
        np.testing.assert_allclose(abs(mine), abs(theirs), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.residual, expected.residual, atol=1e-7)  # type: ignore[arg-type]
    plain = class_statistics(stream_moments(parts, By.CORRECT), 3)
    np.testing.assert_allclose(plain.std, expected.std, rtol=1e-12)
    assert plain.axes is None


def test_classes_without_rows_have_zeros() -> None:
    shard = Shard(torch.ones(3, 2), torch.tensor([1, 1, 0]), torch.tensor([1, 1, 2]))
    found = class_statistics(stream_moments([shard], By.CORRECT), 4)
    assert found.count.tolist() == [0, 2, 0, 0]
    assert found.mean.tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


# --- quantiles -------------------------------------------------------------------------------


def check_ranks(sketch: QuantileSketch, rows: np.ndarray) -> None:
    for share in (0.001, 0.25, 0.5, 0.9, 1.0):
        target = int(np.ceil(share * len(rows) - 1e-9))
        found = sketch.quantiles(share).numpy()
        assert ((rows <= found).sum(0) >= target - sketch.above).all()
        assert ((rows < found).sum(0) <= target - 1 + sketch.below).all()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 700), st.sampled_from([2, 4, 16]), st.integers(0, 999),
    st.lists(st.integers(0, 999), max_size=5), st.sampled_from([1, 3, 1000]), st.booleans(),
)  # fmt: skip
def test_ranks_are_within_the_stated_error(
    rows: int, width: int, seed: int, cuts: list[int], values: int, rising: bool
) -> None:
    z = np.random.default_rng(seed).integers(0, values, (rows, 2)).astype(np.float64)
    z = np.sort(z, axis=0) if rising else z
    ends = sorted(cut % (rows + 1) for cut in cuts)
    parts = [
        stream_quantiles([Shard(torch.from_numpy(part))], width=width) for part in np.split(z, ends)
    ]
    merged = reduce(QuantileSketch.merged, parts)
    one = stream_quantiles([Shard(torch.from_numpy(z))], width=width)
    for sketch in (merged, one):
        assert sketch.count == rows
        assert sum(2**h * part.shape[1] for h, part in enumerate(sketch.levels)) == rows
        halved = len(sketch.levels) - 1
        assert sketch.above + sketch.below <= halved * rows / width
        check_ranks(sketch, z)
    assert one.rank_error <= (halved * rows / width + 2**halved) / 2


def test_few_rows_are_kept_exactly() -> None:
    z = np.random.default_rng(5).normal(size=(1000, 3))
    sketch = stream_quantiles(shards_of(z))
    assert sketch.rank_error == 0
    expected = np.quantile(z, 0.37, axis=0, method="inverted_cdf")
    assert sketch.quantiles(0.37).tolist() == expected.tolist()


def test_memory_grows_with_the_logarithm() -> None:
    z = np.random.default_rng(6).normal(size=(60_000, 1)).astype(np.float16)
    sketch = stream_quantiles(shards_of(z), width=64)
    assert all(part.shape[1] < 64 for part in sketch.levels)
    halved = len(sketch.levels) - 1
    assert halved == 10  # 60,000 rows are 64 · 2^9.9
    assert 0 < sketch.rank_error <= (halved * len(z) / 64 + 2**halved) / 2 < 0.09 * len(z)
    check_ranks(sketch, z)


def test_quantiles_of_a_class() -> None:
    shard = stream(300, 2, 7)
    sketch = stream_quantiles([shard], label=2)
    own = np.asarray(shard.embeddings)[np.asarray(shard.labels) == 2]
    assert sketch.count == len(own)
    check_ranks(sketch, own)


def test_what_does_not_fit_is_refused() -> None:
    one = Shard(torch.ones(3, 2))
    with pytest.raises(BadUsage, match="no embeddings to take moments of"):
        stream_moments([])
    with pytest.raises(BadUsage, match="need the labels"):
        stream_moments([one], By.LABEL)
    with pytest.raises(BadUsage, match="need the predicted classes"):
        stream_moments([Shard(torch.ones(3, 2), torch.zeros(3))], By.CORRECT)
    with pytest.raises(BadUsage, match="cannot be merged"):
        stream_moments([one]).merged(stream_moments([one], full=True))
    with pytest.raises(BadUsage, match="ask for the full covariance"):
        _ = stream_moments([one]).covariance
    labelled = Shard(torch.ones(3, 2), torch.full((3,), 9))
    with pytest.raises(BadUsage, match="cells 9 to 9, for 3 classes"):
        class_statistics(stream_moments([labelled], By.LABEL), 3)
    with pytest.raises(BadUsage, match="an even number"):
        QuantileSketch(3)
    with pytest.raises(BadUsage, match="widths 4 and 8"):
        QuantileSketch(4).merged(QuantileSketch(8))
    with pytest.raises(BadUsage, match=r"sketches of \[2, 3\] coordinates"):
        stream_quantiles([one]).merged(stream_quantiles([Shard(torch.ones(1, 3))]))
    with pytest.raises(BadUsage, match=r"a share in \(0, 1\], not 0"):
        stream_quantiles([one]).quantiles(0)
    with pytest.raises(BadUsage, match="no embeddings to take quantiles of"):
        QuantileSketch().quantiles(0.5)
    with pytest.raises(BadUsage, match="quantiles of a class need the labels"):
        stream_quantiles([one], label=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU to compare with the CPU")
def test_a_gpu_finds_the_same() -> None:
    parts = parts_of(stream(500, 3, 8), [100])
    cpu = stream_moments(parts, By.LABEL)
    gpu = stream_moments(parts, By.LABEL, device="cuda")
    assert cpu.count.tolist() == gpu.count.tolist()
    assert torch.allclose(cpu.mean, gpu.mean.cpu(), rtol=1e-13)
    assert torch.allclose(cpu.squares, gpu.squares.cpu(), rtol=1e-11)
