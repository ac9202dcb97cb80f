"""What a monitor does on a whole region of embeddings, proved or refuted.

Claim: every z of R that the model strictly predicts as c is accepted (or: is flagged). It is about
the exact monitor, with real arithmetic on the stored weights: its score is a sum of weights that
depends on the order of the concepts alone.

1. Orders. For each pair, ``verify`` says whether ``predict(c) => a > b`` holds on R, with a
   certificate. Pairs with a proved order add their weight; each other pair is taken at its worst.
   If that sum is on the right side of the threshold, the claim is proved.
2. Points. Counterexamples of those orders, stored embeddings and extreme points of R are judged
   in exact arithmetic. One on the wrong side refutes the claim.
3. Few open pairs. The claim is then a formula over them, which ``verify`` decides.

``Rule.COUNT`` needs none of that: its acceptance is a formula (``monitor_spec``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations

import numpy as np

from conspec.analysis.heatmaps import Floats
from conspec.analysis.monitor import Monitor, Readout
from conspec.analysis.monitor_spec import place_of
from conspec.encodings.exact import Vector
from conspec.encodings.query import Query, queries_of, space_of
from conspec.encodings.scores import ScoreSpace
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadUsage
from conspec.verifier.decide import DEFAULT_LIMITS, Limits, verify_suite
from conspec.verifier.results import Result
from conspec.verifier.verdict import Proved, Reason, Trust, Unknown, Verdict, Violated, Witness
from conspec.verifier.witness import Store, validated_at, validated_near

MOST_OPEN = 14
"""Open pairs up to which the claim is decided as one formula."""
TRIES = 256
"""Extreme points that are tried."""
VALIDATED = 16
"""Of them, so many with the worst scores are judged exactly, as are so many stored images."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be shown.

    Attributes:
        label: the predicted class c.
        region: R.
        accepts: that all such embeddings are accepted; else, that all are flagged.
    """

    label: str
    region: f.Region
    accepts: bool = True


@dataclass(frozen=True, eq=False)
class Soundness:
    """What is known of a claim.

    Attributes:
        claim: the claim.
        verdict: proved, violated or unknown. A proof rests on ``orders`` (or on the certificate,
            if it has one), so its trust is theirs. Margins are in units of the score.
        threshold: the monitor's, of that class.
        worst: the worst score that the proved orders leave possible; exact.
        orders: the proved orders, each with its certificate.
        open_pairs: pairs without a proved order whose order matters.
    """

    claim: Claim
    verdict: Verdict
    threshold: float
    worst: float
    orders: tuple[Result, ...]
    open_pairs: int


def soundness(
    monitor: Monitor, lens: Lens, claim: Claim, limits: Limits = DEFAULT_LIMITS
) -> Soundness:
    """Prove or refute a claim about a monitor.

    Args:
        monitor: fitted and calibrated; its readout must be the bundle's.
        lens: the bundle.
        claim: what is to be shown.
        limits: for each call of the verifier.

    Raises:
        BadUsage: the monitor is about another head or concept map.
        BadRegion: the region is empty or cannot be built.
        UnknownName: there is no such class.
    """
    task = _Task.of(monitor, lens, claim)
    results = list(verify_suite(f.Suite(tuple(_order_specs(task))), lens, limits=limits))
    proved = tuple(r for r in results if isinstance(r.verdict, Proved))
    orders = {_pair(r): r for r in proved}
    worst, open_pairs = _worst(task, orders)

    def found(verdict: Verdict) -> Soundness:
        count = len(open_pairs)
        return Soundness(claim, verdict, float(task.threshold), float(worst), proved, count)

    if task.is_fine(worst):
        trusts = [r.verdict.trust for r in proved if isinstance(r.verdict, Proved)]
        trust = Trust.SOLVER if Trust.SOLVER in trusts else Trust.CERTIFIED
        vacuous = {r.verdict.vacuous for r in proved if isinstance(r.verdict, Proved)}
        is_vacuous = vacuous.pop() if len(vacuous) == 1 else None
        return found(Proved(trust, abs(float(worst - task.threshold)), is_vacuous))
    witness = _refutation(task, results, open_pairs)
    if witness is not None:
        return found(Violated(witness))
    if len(open_pairs) > MOST_OPEN:
        return found(
            Unknown(Reason.INCOMPLETE, f"the order of {len(open_pairs)} pairs is open on it")
        )
    return found(_as_formula(task, orders, open_pairs, limits))


@dataclass(frozen=True, eq=False)
class _Task:
    """One claim, made exact.

    Attributes:
        lens: the bundle.
        space: its exact scores.
        claim: what is to be shown.
        weights: of the class, float64 [M, M].
        start: of the class.
        threshold: of the class.
        queries: "no z of this part of R is predicted as the class"; its counterexamples are the
            embeddings that the claim is about.
    """

    lens: Lens
    space: ScoreSpace
    claim: Claim
    weights: Floats
    start: Fraction
    threshold: Fraction
    queries: tuple[Query, ...] = field(repr=False)

    @classmethod
    def of(cls, monitor: Monitor, lens: Lens, claim: Claim) -> "_Task":
        _check_readout(monitor.readout, lens)
        place = place_of(monitor.readout, claim.label)
        space = space_of(lens)
        never = f.Not(f.Predict(claim.label))
        queries = queries_of(f.ForAll("never", claim.region, never), lens, space)
        return cls(
            lens,
            space,
            claim,
            monitor.reference.weights[place],
            Fraction(float(monitor.reference.start[place])),
            Fraction(float(monitor.calibration.thresholds[place])),
            tuple(queries),
        )

    def is_fine(self, score: Fraction) -> bool:
        """Whether the claim holds of an embedding with this score."""
        return (score >= self.threshold) is self.claim.accepts

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of concepts whose order matters."""
        both = self.weights, self.weights.T
        matters = (both[0] != 0) | (both[1] != 0)
        size = len(self.weights)
        return [(a, b) for a, b in combinations(range(size), 2) if matters[a, b]]

    def best(self, a: int, b: int) -> tuple[int, int]:
        """The pair in the order that is better for the claim."""
        better = self.weights[a, b] >= self.weights[b, a]
        return (a, b) if better is np.bool_(self.claim.accepts) else (b, a)

    def at_worst(self, a: int, b: int) -> Fraction:
        """What a pair of unknown order adds in the worst case; a tie adds nothing."""
        values = (Fraction(float(self.weights[a, b])), Fraction(float(self.weights[b, a])))
        return min(*values, Fraction(0)) if self.claim.accepts else max(*values, Fraction(0))

    def score(self, point: Vector) -> Fraction:
        """The exact score of an embedding predicted as the class."""
        values = self.space.concept_map.exact(point)
        total = self.start
        for a, b in self.pairs:
            if values[a] != values[b]:
                stronger = (a, b) if values[a] > values[b] else (b, a)
                total += Fraction(float(self.weights[stronger]))
        return total

    def measured(self, witness: Witness) -> Witness:
        """With the margin of the score; without what its replay says of another formula."""
        margin = abs(self.score(witness.point) - self.threshold)
        return replace(witness, margin=margin, replay=None)


def _check_readout(readout: Readout, lens: Lens) -> None:
    own = Readout.of(lens)
    mine, theirs = ((*r.head, r.concept_map) for r in (readout, own))
    same = len(mine) == len(theirs) and all(
        np.array_equal(a, b)
        for first, second in zip(mine, theirs, strict=False)
        for a, b in zip(first, second, strict=True)
    )
    if not same or (readout.classes, readout.concepts) != (own.classes, own.concepts):
        raise BadUsage(f"the monitor is of another model than the bundle {lens.root}")


def _order_specs(task: _Task) -> Iterator[f.ForAll]:
    names = task.space.concepts
    for a, b in task.pairs:
        for first, second in ((a, b), (b, a)):
            order = f.Stronger(names[first], names[second])
            body = f.Implies(f.Predict(task.claim.label), order)
            yield f.ForAll(f"order {first} {second}", task.claim.region, body)


def _pair(result: Result) -> tuple[int, int]:
    _, first, second = result.spec.name.split()
    return int(first), int(second)


def _worst(
    task: _Task, orders: dict[tuple[int, int], Result]
) -> tuple[Fraction, list[tuple[int, int]]]:
    """The worst score that the orders allow, and the pairs without one."""
    total, without = task.start, []
    for a, b in task.pairs:
        # Both orders are proved only where nothing is predicted as the class: either will do.
        first = task.best(a, b)
        known = next((pair for pair in (first, first[::-1]) if pair in orders), None)
        if known is None:
            without.append((a, b))
        total += task.at_worst(a, b) if known is None else Fraction(float(task.weights[known]))
    return total, without


# --- points ----------------------------------------------------------------------------------


def _refutation(
    task: _Task, results: Sequence[Result], open_pairs: Sequence[tuple[int, int]]
) -> Witness | None:
    """An embedding that the claim is about and that is on the wrong side, exactly."""
    store = Store.of(task.lens, task.space)
    for found in _candidates(task, results, open_pairs):
        if task.is_fine(task.score(found.point)):
            continue
        # The replay compares exact with float32 scores (rule S7).
        ((witness, consistent),) = store.completed([(found, task.queries[0].spec.body)])
        if consistent:
            return task.measured(witness)
    return None


def _candidates(
    task: _Task, results: Sequence[Result], open_pairs: Sequence[tuple[int, int]]
) -> Iterator[Witness]:
    """Embeddings of the region that are predicted as the class, each valid exactly."""
    for result in results:
        if isinstance(result.verdict, Violated):
            yield result.verdict.witness
    embeddings = Store.of(task.lens, task.space).embeddings
    for query in task.queries:
        inside = np.flatnonzero(query.region.members(embeddings))
        for image in inside[_order(task, embeddings[inside])][:VALIDATED]:
            found = validated_near(query, embeddings[image], int(image))
            if found is not None:
                yield found
        parameters = _extreme(task, query, open_pairs)
        points = query.region.points(parameters)
        for row in _order(task, points)[:VALIDATED]:
            found = validated_at(query, query.region.into(parameters[row]))
            if found is not None:
                yield found


def _order(task: _Task, points: Floats) -> list[int]:
    """The points [N, n] that are roughly predicted as the class, worst score first."""
    weight, bias = task.space.concept_map.floats
    values = points @ weight.T + bias
    above = values[:, :, None] > values[:, None, :]
    scores = (above * task.weights).sum(axis=(1, 2))
    logits = task.space.head.floats(points)
    own = task.space.classes.index(task.claim.label)
    order = np.argsort(scores if task.claim.accepts else -scores, kind="stable")
    return [int(i) for i in order if logits[i].argmax() == own]


def _extreme(task: _Task, query: Query, open_pairs: Sequence[tuple[int, int]]) -> Floats:
    """Parameters [T, k] of points that turn random sets of open pairs the wrong way.

    A random share of the way from the centre, since the extreme points alone often leave the
    class.
    """
    random = np.random.default_rng(0)
    weight, _ = task.space.concept_map.floats
    turned = [task.best(a, b) for a, b in open_pairs]
    rows = np.array([weight[b] - weight[a] for a, b in turned]).reshape(-1, weight.shape[1])
    stakes = np.array([abs(task.weights[a, b] - task.weights[b, a]) for a, b in turned])
    shares = stakes * random.random((TRIES, len(rows))) * random.integers(0, 2, (TRIES, len(rows)))
    directions, _ = query.region.pull_rough(shares @ rows, np.zeros(TRIES))
    points = query.region.maximisers(directions)
    inward = random.random((TRIES, 1)) ** 0.5
    middle = points.mean(axis=0) if query.region.shape.value == "simplex" else 0.0
    return np.asarray(middle + inward * (points - middle), dtype=np.float64)


# --- few open pairs --------------------------------------------------------------------------


def _as_formula(
    task: _Task,
    orders: dict[tuple[int, int], Result],
    open_pairs: Sequence[tuple[int, int]],
    limits: Limits,
) -> Verdict:
    """The claim as one formula over the open pairs.

    A pair counts as right only if it is strictly in the better order; a tie counts as the worst.
    So a proof holds, and a counterexample is judged again by its exact score.
    """
    names, turned = task.space.concepts, [task.best(a, b) for a, b in open_pairs]
    worst, _ = _worst(task, orders)
    gains = [abs(Fraction(float(task.weights[p])) - task.at_worst(*p)) for p in turned]
    needed = abs(task.threshold - worst)
    atoms = [f.Stronger(names[a], names[b]) for a, b in turned]
    body = _reaches(atoms, gains, needed, strict=not task.claim.accepts)
    implied = f.Implies(f.Predict(task.claim.label), body)
    spec = f.ForAll("claim", task.claim.region, implied)
    (result,) = verify_suite(f.Suite((spec,)), task.lens, limits=limits)
    match result.verdict:
        case Violated(witness):
            if task.is_fine(task.score(witness.point)):
                return Unknown(Reason.NO_VALID_POINT, "the only point found has a tie of concepts")
            return Violated(task.measured(witness))
        case Proved() as proof:
            return replace(proof, bound=None)  # its margin is of concept scores
        case Unknown() as undecided:
            return undecided


def _reaches(
    atoms: Sequence[f.Formula], gains: Sequence[Fraction], needed: Fraction, strict: bool
) -> f.Formula:
    """True where the gains of the true atoms sum to the needed amount (or more, if strict)."""
    order = sorted(range(len(atoms)), key=lambda i: -gains[i])
    rest = [sum((gains[i] for i in order[k:]), Fraction(0)) for k in range(len(order) + 1)]
    known: dict[tuple[int, Fraction], f.Formula] = {}

    def enough(amount: Fraction) -> bool:
        return amount < 0 or (amount == 0 and not strict)

    def formula(at: int, amount: Fraction) -> f.Formula:
        if enough(amount):
            return f.Constant(True)
        if not enough(amount - rest[at]):
            return f.Constant(False)
        if (at, amount) not in known:
            place = order[at]
            with_it = formula(at + 1, amount - gains[place])
            without = formula(at + 1, amount)
            chosen = f.And((atoms[place], with_it))
            known[at, amount] = f.Or((chosen, without))
        return known[at, amount]

    return formula(0, needed)
