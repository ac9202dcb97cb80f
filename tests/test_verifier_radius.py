"""``radius_suite`` against linear and least-distance programs written from the definitions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import linprog, nnls

from conspec.encodings.query import space_of
from conspec.lens import Lens
from conspec.lens.tables import LEADING
from conspec.specs import formula as f
from conspec.specs import parse
from conspec.specs.errors import BadRegion
from conspec.verifier import Limits, Proved, Trust, Violated, verify_suite
from conspec.verifier.checker import check_line
from conspec.verifier.checker_files import Bundle
from conspec.verifier.radius import LARGEST, Radius, at_scale, radius_suite
from conspec.verifier.results import to_json
from tests.bundles import write_random, write_skewed, write_tiny

Floats = npt.NDArray[np.float64]
Case = list[tuple[Floats, float]]
"""Inequalities ``row · z + constant >= 0`` that hold together."""

REGIONS = (
    "focus(truck, gamma=1)",
    "pca_box(truck, gamma=1)",
    "zonotope(truck, gamma=1)",
    "ellipsoid(truck, gamma=1)",
    "ball(3, radius=1, norm=linf)",
    "ball(3, radius=1, norm=l2)",
)
BODIES = (
    "predict(truck) => wheels > wings",
    "wheels > wings or fur > wings",
    "wheels > wings and logit(truck) - logit(bird) >= -1",
    'atleast(2, wheels > wings, fur > wings, "floppy ears" > wings)',
    "not (score(wheels) >= 0.5 and score(fur) <= 0.25)",
    "logit(bird) >= -20 => wheels > fur",
)
SEEDS = range(6)


@dataclass(frozen=True, slots=True)
class Scores:
    """The affine maps of a bundle, as rows and constants."""

    logits: Case
    concepts: Case

    @classmethod
    def of(cls, lens: Lens) -> "Scores":
        space = space_of(lens)
        (head,) = space.head.affines
        concepts = space.concept_map
        return cls(
            list(zip(head.weight, head.bias.tolist(), strict=True)),
            list(zip(concepts.weight, concepts.bias.tolist(), strict=True)),
        )


def minus(first: tuple[Floats, float], second: tuple[Floats, float]) -> tuple[Floats, float]:
    return first[0] - second[0], first[1] - second[1]


def plus(first: tuple[Floats, float], constant: float) -> tuple[Floats, float]:
    return first[0], first[1] + constant


def flipped(first: tuple[Floats, float]) -> tuple[Floats, float]:
    return -first[0], -first[1]


def violations(body: str, scores: Scores) -> list[Case]:
    """All ways in which a formula fails, up to their border; derived by hand."""
    truck, bird, lion = scores.logits
    wheels, wings, fur, ears = scores.concepts
    over = [minus(wings, wheels), minus(wings, fur), minus(wings, ears)]
    return {
        BODIES[0]: [[minus(truck, bird), minus(truck, lion), over[0]]],
        BODIES[1]: [over[:2]],
        BODIES[2]: [[over[0]], [plus(minus(bird, truck), -1.0)]],
        BODIES[3]: [list(pair) for pair in combinations(over, 2)],
        BODIES[4]: [[plus(wheels, -0.5), plus(flipped(fur), 0.25)]],
        BODIES[5]: [[plus(bird, 20.0), minus(fur, wheels)]],
    }[body]


def frame(region: str, lens: Lens) -> tuple[Floats, Floats]:
    """Centre and generators of a region of scale 1, from its definition."""
    statistics, index = lens.statistics, lens.class_index("truck")
    mean = np.asarray(statistics.mean[index], dtype=np.float64)
    if region.startswith("ball"):
        return lens.embeddings.z[3].astype(np.float64), np.eye(lens.dim)
    if region.startswith("focus"):
        return mean, np.diag(statistics.std[index])
    assert statistics.axes is not None
    assert statistics.residual is not None
    axes = np.asarray(statistics.axes[index])
    if region.startswith("zonotope"):
        return mean, np.hstack([axes[:, :LEADING], np.diag(statistics.residual[index])])
    return mean, axes


def least_scale(case: Case, region: str, lens: Lens) -> float:
    """The least γ at which all inequalities hold somewhere in the region; infinite if at none."""
    centre, generators = frame(region, lens)
    if region.startswith("focus") and lens.nonnegative:
        case = [*case, *((row, 0.0) for row in np.eye(lens.dim))]
    rows = np.array([row for row, _ in case]) @ generators
    bounds = -np.array([constant + row @ centre for row, constant in case])
    if region.startswith("ellipsoid") or region.endswith("l2)"):
        return least_length(rows, bounds)
    count = rows.shape[1]
    sides = np.vstack([np.eye(count), -np.eye(count)])  # |t_j| <= γ
    matrix = np.vstack(
        [np.hstack([-rows, np.zeros((len(rows), 1))]), np.hstack([sides, -np.ones((2 * count, 1))])]
    )
    found = linprog(
        np.append(np.zeros(count), 1.0),
        matrix,
        np.append(-bounds, np.zeros(2 * count)),
        bounds=[(None, None)] * count + [(0, None)],
    )
    return float(found.fun) if found.status == 0 else float("inf")


def least_length(rows: Floats, bounds: Floats) -> float:
    """The least ``|t|`` with ``rows · t >= bounds`` (Lawson and Hanson, 1974, chapter 23)."""
    stacked = np.vstack([rows.T, bounds])
    target = np.append(np.zeros(rows.shape[1]), 1.0)
    solution, _ = nnls(stacked, target)
    residual = stacked @ solution - target
    if np.linalg.norm(residual) < 1e-9:
        return float("inf")
    return float(np.linalg.norm(residual[:-1] / residual[-1]))


@pytest.fixture(scope="module")
def lenses(tmp_path_factory: pytest.TempPathFactory) -> list[Lens]:
    folder = tmp_path_factory.mktemp("random")
    return [write_random(folder / str(seed), seed, signed=seed % 4 == 3) for seed in SEEDS]


def measured(lens: Lens, *texts: str, seconds: float = 10.0) -> list[Radius]:
    return list(radius_suite(parse("\n".join(texts)), lens, Limits(seconds)))


def suite_of(region: str) -> list[str]:
    return [f"spec s{i}: forall x in {region}: {body}" for i, body in enumerate(BODIES)]


def check_lines(lens: Lens, radii: Sequence[Radius]) -> int:
    """Every end passes the checker; how many there are."""
    bundle = Bundle(lens.root)
    ends = [(r.proof, "proof") for r in radii] + [(r.violation, "counterexample") for r in radii]
    for end, kind in ends:
        if end is not None:
            assert check_line(json.loads(json.dumps(to_json(end, lens))), bundle) == kind
    return sum(end is not None for end, _ in ends)


@pytest.mark.parametrize("region", REGIONS)
def test_both_ends_enclose_the_least_scale_of_a_linear_program(
    lenses: list[Lens], region: str
) -> None:
    kinds = {"centre": 0, "inside": 0, "never": 0}
    for lens in lenses:
        radii = measured(lens, *suite_of(region))
        check_lines(lens, radii)
        for body, found in zip(BODIES, radii, strict=True):
            cases = violations(body, Scores.of(lens))
            expected = min(least_scale(case, region, lens) for case in cases)
            lower, upper = found.lower, found.upper
            if expected <= 1e-9:
                kinds["centre"] += 1
                assert lower is None, (lens.root, body)
                assert upper == 0, (lens.root, body)
            elif expected > LARGEST:
                kinds["never"] += 1
                assert upper is None
                assert lower is not None
                assert lower >= LARGEST * 0.99
            else:
                kinds["inside"] += 1
                assert lower is not None, (lens.root, body, expected)
                assert upper is not None, (lens.root, body, expected)
                assert float(lower) <= expected * (1 + 1e-7)
                assert float(upper) >= expected * (1 - 1e-7)
                assert upper - lower <= lower / 10_000
    assert kinds["inside"] >= 8, kinds
    assert kinds["centre"] >= 3, kinds


@pytest.mark.parametrize("region", REGIONS)
def test_it_is_proved_below_and_violated_above(lenses: list[Lens], region: str) -> None:
    for lens in lenses[:2]:
        for found in measured(lens, *suite_of(region)):
            below, above = found.lower, found.upper
            scales = [] if below is None else [below * Fraction(9, 10), below / 3, Fraction(0)]
            for scale, kind in [(s, Proved) for s in scales] + (
                [] if above is None else [(above * 2 + 1, Violated), (above, Violated)]
            ):
                asked = replace(found.spec, region=at_scale(found.spec.region, scale))
                (result,) = verify_suite(f.Suite((asked,)), lens)
                assert isinstance(result.verdict, kind), (found.spec, scale)


def test_the_cut_to_nonnegative_embeddings_counts(lenses: list[Lens]) -> None:
    """Without it, some spec would break earlier."""
    later = 0
    for lens in lenses:
        if not lens.nonnegative:
            continue
        for body in BODIES:
            cases = violations(body, Scores.of(lens))
            cut = min(least_scale(case, "focus", lens) for case in cases)
            free = min(least_scale(case, "pca_box", _uncut(lens)) for case in cases)
            later += free * 1.01 < cut < LARGEST
    assert later >= 3


def _uncut(lens: Lens) -> Lens:
    """The same lens, whose principal axes are those of the focus box."""
    index = lens.class_index("truck")
    axes = np.array(lens.statistics.axes)
    axes[index] = np.diag(lens.statistics.std[index])
    copy = Lens.load(lens.root)
    copy.__dict__["statistics"] = replace(lens.statistics, axes=axes)
    return copy


def test_the_spec_s_own_scale_plays_no_part(lenses: list[Lens]) -> None:
    texts = [
        f"spec s{i}: forall x in focus(truck, gamma={gamma}): wheels > wings or fur > wings"
        for i, gamma in enumerate(("0", "1/3", "0.7", "900"))
    ]
    found = {(r.lower, r.upper) for r in measured(lenses[1], *texts)}
    assert len(found) == 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


def one(lens: Lens, body: str, region: str = "focus(truck, gamma=1)", **more: float) -> Radius:
    (found,) = measured(lens, f"spec s: forall x in {region}: {body}", **more)
    return found


@pytest.mark.parametrize("region", REGIONS)
def test_what_fails_at_the_centre_fails_from_zero(tiny: Lens, region: str) -> None:
    found = one(tiny, "wings > wheels", region)
    assert found.lower is None
    assert found.upper == 0
    assert check_lines(tiny, [found]) == 1


@pytest.mark.parametrize(
    "body", ["true", "wheels > wings or wings >= wheels", "score(wheels) >= 0"]
)
def test_what_never_fails_is_proved_as_far_as_one_looks(tiny: Lens, body: str) -> None:
    found = one(tiny, body)  # the tiny bundle's embeddings are cut to z >= 0
    assert found.lower is not None
    assert found.lower >= LARGEST * 0.99
    assert found.upper is None
    assert check_lines(tiny, [found]) == 1


def test_a_tie_at_the_centre_fails_from_zero(tiny: Lens) -> None:
    """``false`` and a strict comparison of a score with itself fail everywhere."""
    for body in ("false", "wheels > wheels"):
        found = one(tiny, body)
        assert found.lower is None
        assert found.upper == 0


def test_a_tie_that_the_spec_allows_holds_at_the_centre_alone(tiny: Lens) -> None:
    centre = Fraction(float(tiny.statistics.mean[0][0]))
    found = one(tiny, f"score(wheels) >= {centre.numerator}/{centre.denominator}")
    assert found.lower == 0
    assert found.upper is not None
    assert 0 < found.upper < 1e-6
    assert check_lines(tiny, [found]) == 2


def test_a_radius_may_be_vacuous(tiny: Lens) -> None:
    found = one(tiny, "predict(bird) => fur > wheels")
    assert found.proof is not None
    assert isinstance(found.proof.verdict, Proved)
    assert found.proof.verdict.vacuous is True


def test_has_is_bisected_and_both_ends_are_certified(tiny: Lens) -> None:
    found = one(tiny, "has(wheels) or wings > fur", seconds=2.0)
    assert found.lower is not None
    assert found.upper is not None
    assert 0 < found.lower < found.upper
    assert check_lines(tiny, [found]) == 2


def test_relu_heads_are_bisected(tmp_path: Path) -> None:
    lens = write_skewed(tmp_path / "skewed", hidden=True)
    found = one(lens, "logit(truck) > logit(bird) - 3", "ball(3, radius=1, norm=linf)")
    assert found.lower is not None
    assert found.upper is not None
    assert found.upper - found.lower <= found.lower / 500
    assert found.proof is not None
    assert isinstance(found.proof.verdict, Proved)
    assert found.proof.verdict.trust is Trust.SOLVER  # no certificates for ReLU heads so far


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ("hull(truck)", "a hull has no scale"),
        ("box(0, 1)", "a box with given bounds has no scale"),
        ("focus(truck, gamma=1) and box(0, 1)", "an intersection of regions has no scale"),
        ("focus(truck, gamma=1) or hull(bird)", "a union of regions has no scale"),
    ],
)
def test_a_region_without_a_scale_is_refused_before_the_first_result(
    tiny: Lens, region: str, said: str
) -> None:
    texts = ["spec a: forall x in focus(truck, gamma=1): true"]
    texts.append(f"spec b: forall x in {region}: wheels > wings")
    with pytest.raises(BadRegion, match=said):
        next(radius_suite(parse("\n".join(texts)), tiny))
