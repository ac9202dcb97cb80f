"""The front door: ``verify`` for one query, ``verify_suite`` for a suite.

``auto`` goes from cheap to dear: look at the stored embeddings, screen the whole suite with
closed-form bounds, search multipliers for what is left in batches, then lemmas (or, where logits
of a ReLU head are compared, linear bounds, a climb to a counterexample, and HiGHS), and z3 where
those are not sure. A named engine decides what the closed-form bounds leave open; what they prove,
they prove for every engine, and on a ReLU head linear bounds and a climb come before a MILP engine,
too (``engines.open_session`` asks a solver without all that).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

import numpy as np

from conspec.encodings.query import Query, space_of
from conspec.encodings.regions import ConvexRegion, Part, build_regions
from conspec.lens.bundle import Lens
from conspec.specs import formula as f
from conspec.specs.errors import BadRegion, BadUsage, UnknownName
from conspec.specs.rewrite import Nnf
from conspec.verifier.batch import Gallery, Screened, screen
from conspec.verifier.certificate import merged
from conspec.verifier.device import Device
from conspec.verifier.engines import MILP_SOLVERS, Session, open_session
from conspec.verifier.objectives import Objective, more_witnesses
from conspec.verifier.results import Coverage, Result, coverage_of
from conspec.verifier.screen import reduce
from conspec.verifier.verdict import Proved, Reason, Trust, Unknown, Verdict, Violated, Witness
from conspec.verifier.witness import Store, validated_at

ENGINES = ("auto", "box", "z3", *MILP_SOLVERS)
POINTS = ("auto", "box")
"""Engines for which the screen tries points too, and not only bounds."""
EMPTINESS_SECONDS = 5.0
"""Time spent on noticing that a region is empty, which no verdict depends on."""
SLICE = 4096
"""Specs that are screened together; it bounds the memory, whatever the suite's size."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may spend, and what it should return.

    Attributes:
        seconds: time limit per query and solver.
        counterexamples: how many different counterexamples are wanted.
        objective: which counterexample comes first.
    """

    seconds: float = 60.0
    counterexamples: int = 1
    objective: Objective = Objective.ANY


DEFAULT_LIMITS = Limits()


@dataclass
class _Sessions:
    """The solver sessions of the region at hand; those of other regions are dropped."""

    region: ConvexRegion | None = None
    open: dict[str, Session] = field(default_factory=dict)

    def get(self, engine: str, query: Query) -> Session:
        """The session of an engine on the query's region."""
        if self.region is not query.region:
            self.region, self.open = query.region, {}
        if engine not in self.open:
            self.open[engine] = open_session(engine, query.space, query.region)
        return self.open[engine]


def verify(query: Query, engine: str = "auto", limits: Limits = DEFAULT_LIMITS) -> Verdict:
    """The verdict of one query; without a bundle, so without images and replay.

    Raises:
        BadUsage: there is no such engine.
        MissingSolver: the engine's solver or licence is absent.
    """
    _check_engine(engine)
    if query.region.is_empty:
        return Proved(Trust.CERTIFIED, vacuous=True)
    (screened,) = screen([query], points=engine in POINTS, ascent=engine == "auto")
    verdict, _ = _settled(screened, engine, limits, _Sessions())
    if isinstance(verdict, Proved):
        return replace(verdict, vacuous=is_vacuous(query, limits))
    return verdict


def is_vacuous(query: Query, limits: Limits = DEFAULT_LIMITS) -> bool | None:
    """Whether no point of the region satisfies the premise; None if that was not decided.

    A formula that is no implication has no premise, so it is not vacuous.
    """
    if not isinstance(query.spec.body, f.Implies):
        return False
    never = replace(query.spec, body=f.Not(query.spec.body.premise))
    (screened,) = screen([replace(query, spec=never)], points=True, ascent=True)
    verdict, _ = _settled(screened, "auto", limits, _Sessions())
    return None if isinstance(verdict, Unknown) else isinstance(verdict, Proved)


def verify_suite(
    suite: f.Suite,
    lens: Lens,
    engine: str = "auto",
    limits: Limits = DEFAULT_LIMITS,
    device: Device | None = None,
) -> Iterator[Result]:
    """Results of a suite's ``forall`` specs, in order, each as soon as it is known.

    Probability specs are passed over: they are estimated, not proved. The screen computes on the
    device if one is given, else with numpy.

    Raises:
        BadUsage: there is no such engine.
        BadRegion: a region is empty or cannot be built; raised before the first result.
        UnknownName: a class, concept or image that the bundle does not have.
        MissingSolver: the engine's solver or licence is absent.
    """
    _check_engine(engine)
    return _Run(lens, engine, limits, device).results(
        [spec for spec in suite.specs if isinstance(spec, f.ForAll)]
    )


def _check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise BadUsage(f"no engine '{engine}'; there are {', '.join(ENGINES)}")


class _Run:
    """One suite on one bundle."""

    def __init__(self, lens: Lens, engine: str, limits: Limits, device: Device | None) -> None:
        self._lens = lens
        self._device = device
        self._engine = engine
        self._limits = limits
        self._space = space_of(lens)
        self._store = Store.of(lens, self._space)
        self._parts: dict[f.Region, list[Part]] = {}
        self._coverage: dict[f.Region, Coverage | None] = {}
        self._gallery = Gallery(self._store.embeddings) if engine == "auto" else None
        self._sessions = _Sessions()
        self._vacuous: dict[tuple[int, f.Formula], bool | None] = {}

    def results(self, specs: Sequence[f.ForAll]) -> Iterator[Result]:
        """Screens some specs at once, then settles what is left of them, one by one."""
        for spec in specs:  # so that a bad region or name is found before the first result
            self._queries(spec)
            try:
                self._space.negated(spec.body)
            except UnknownName as error:
                raise UnknownName(f"spec {spec.name}: {error}") from error
        for first in range(0, len(specs), SLICE):
            yield from self._slice(specs[first : first + SLICE])

    def _slice(self, specs: Sequence[f.ForAll]) -> Iterator[Result]:
        """Results of a few specs."""
        start = monotonic()
        queries = [self._queries(spec) for spec in specs]
        flat = [query for parts in queries for query in parts]
        screened = iter(
            screen(
                flat,
                points=self._engine in POINTS,
                ascent=self._engine == "auto",
                gallery=self._gallery,
                device=self._device,
            )
        )
        rows = [[next(screened) for _ in parts] for parts in queries]
        finished = self._finished_at_once(rows)
        share = (monotonic() - start) / max(len(specs), 1)
        for index, (spec, row) in enumerate(zip(specs, rows, strict=True)):
            start = monotonic()
            verdict, stage = finished.get(index) or self._settle(row)
            if isinstance(verdict, Proved):
                verdict = replace(verdict, vacuous=self._vacuity(row))
            coverage = self._coverage_of(spec.region)
            seconds = share + monotonic() - start
            yield Result(spec, self._engine, verdict, seconds, coverage, stage)

    def _vacuity(self, row: Sequence[Screened]) -> bool | None:
        """Whether the premise fails on all parts of the region; None if that is not known."""
        answers = set()
        for entry in row:
            query = entry.query
            if not isinstance(query.spec.body, f.Implies):
                return False
            key = (id(query.region), query.spec.body.premise)
            if key not in self._vacuous:
                self._vacuous[key] = is_vacuous(query, self._limits)
            answers.add(self._vacuous[key])
        return False if False in answers else None if None in answers else True

    def _queries(self, spec: f.ForAll) -> list[Query]:
        """One query per convex part of the spec's region."""
        if spec.region not in self._parts:
            self._parts[spec.region] = self._checked_parts(spec)
        return [
            Query(spec, self._space, part.region, place, part.cuts)
            for place, part in enumerate(self._parts[spec.region])
        ]

    def _checked_parts(self, spec: f.ForAll) -> list[Part]:
        """The parts of the spec's region, none of which is empty."""
        try:
            parts = build_regions(spec.region, self._lens)
        except BadRegion as error:
            raise BadRegion(f"spec {spec.name}: {error}") from error
        for part in parts:
            never = f.ForAll(spec.name, spec.region, f.Constant(False))
            query = Query(never, self._space, part.region, 0, part.cuts)
            limits = replace(self._limits, seconds=min(self._limits.seconds, EMPTINESS_SECONDS))
            is_cut_away = part.cuts and isinstance(verify(query, "auto", limits), Proved)
            if part.region.is_empty or is_cut_away:
                raise BadRegion(
                    f"spec {spec.name}: the region is empty, so there is nothing to prove"
                )
        return parts

    def _finished_at_once(
        self, rows: Sequence[Sequence[Screened]]
    ) -> dict[int, tuple[Verdict, str]]:
        """Specs that the screen settled, completed in one batch."""
        plain = self._limits.counterexamples <= 1 and self._limits.objective is Objective.ANY
        finished: dict[int, tuple[Verdict, str]] = {}
        violated: list[tuple[int, Witness, f.Formula]] = []
        for index, row in enumerate(rows):
            verdicts = [entry.verdict for entry in row]
            bad = next((v for v in verdicts if isinstance(v, Violated)), None)
            if bad is not None and plain:
                violated.append((index, bad.witness, row[0].query.spec.body))
            elif all(isinstance(verdict, Proved) for verdict in verdicts):
                proof = _merged([verdict for verdict in verdicts if verdict is not None])
                by_ascent = any(entry.stage == "ascent" for entry in row)
                finished[index] = proof, "ascent" if by_ascent else "screen"
        completed = self._store.completed([(w, body) for _, w, body in violated])
        for (index, _, _), (witness, consistent) in zip(violated, completed, strict=True):
            stage = next(e.stage for e in rows[index] if isinstance(e.verdict, Violated))
            finished[index] = _replayed([witness], consistent), stage
        return finished

    def _settle(self, row: Sequence[Screened]) -> tuple[Verdict, str]:
        """The verdict over all parts of a spec's region, and the stage that settled it."""
        verdicts = []
        stage = "screen"
        for entry in row:
            verdict, stage = _settled(entry, self._engine, self._limits, self._sessions)
            if isinstance(verdict, Violated):
                return self._completed(entry, verdict), stage
            verdicts.append(verdict)
        return _merged(verdicts), stage

    def _completed(self, entry: Screened, verdict: Violated) -> Verdict:
        """The violation with the witnesses asked for, replayed and with neighbours."""
        query = entry.query
        wanted = (self._limits.objective, self._limits.counterexamples)
        reduced = reduce(query.constrained, entry.ranges, entry.place)
        found = more_witnesses(query, reduced, verdict.witness, wanted, self._limits.seconds)
        completed = self._store.completed([(witness, query.spec.body) for witness in found])
        return _replayed([w for w, _ in completed], all(fine for _, fine in completed))

    def _coverage_of(self, region: f.Region) -> Coverage | None:
        if region not in self._coverage:
            parts = self._parts[region]
            self._coverage[region] = coverage_of(region, parts, self._lens, self._space)
        return self._coverage[region]


def _settled(
    entry: Screened, engine: str, limits: Limits, sessions: _Sessions
) -> tuple[Verdict, str]:
    """The verdict of one screened query, and the stage that gave it."""
    if entry.verdict is not None:
        return entry.verdict, entry.stage
    query = entry.query
    if engine == "box":
        return _box_answer(query), "screen"
    reduced = reduce(query.constrained, entry.ranges, entry.place)
    undecided = Unknown(Reason.INCOMPLETE)
    stages = _stages(engine, query.is_affine)
    for stage in stages:
        verdict = sessions.get(stage, query).decide(query, reduced, limits.seconds)
        if isinstance(verdict, Proved) and verdict.trust is Trust.SOLVER:
            return _certified(verdict, query, reduced, limits, sessions), stage
        if not isinstance(verdict, Unknown):
            return verdict, stage
        # Solvers leave has(…) open; what was said of it before them is the better reason.
        if verdict.reason is not Reason.UNSUPPORTED_ATOM or undecided.reason is Reason.INCOMPLETE:
            undecided = verdict
        if verdict.reason is Reason.TIME_LIMIT and not query.is_affine:
            break  # on a ReLU head z3 takes longer than a MILP solver, for what both can settle
    return undecided, stage


def _stages(engine: str, is_affine: bool) -> tuple[str, ...]:
    """The sessions to ask, in order."""
    if engine == "auto":
        return ("lemmas", "z3") if is_affine else ("bounds", "falsify", "highs", "z3")
    return (engine,) if is_affine or engine == "z3" else ("bounds", "falsify", engine)


def _certified(
    proof: Proved, query: Query, reduced: Nnf, limits: Limits, sessions: _Sessions
) -> Verdict:
    """A solver's proof with a certificate, where the lemma engine finds one.

    Should it find an exact counterexample instead, the solver was wrong and the exact verdict
    stands.
    """
    if not query.is_affine:
        return proof
    checked = sessions.get("lemmas", query).decide(query, reduced, limits.seconds)
    return proof if isinstance(checked, Unknown) else checked


def _box_answer(query: Query) -> Verdict:
    """What is left to the box engine: the centre of the region, or no answer."""
    middle = query.region.into(np.zeros(query.region.parameters))
    witness = validated_at(query, middle)
    if witness is not None:
        return Violated(witness)
    return Unknown(Reason.UNSUPPORTED_ATOM if query.cones else Reason.INCOMPLETE)


def _merged(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict over a union from those of its parts, none of which is violated."""
    if len(verdicts) == 1:
        return verdicts[0]
    for verdict in verdicts:
        if isinstance(verdict, Unknown):
            return verdict
    proofs = [verdict for verdict in verdicts if isinstance(verdict, Proved)]
    bounds = [proof.bound for proof in proofs if proof.bound is not None]
    return Proved(
        Trust.SOLVER if any(p.trust is Trust.SOLVER for p in proofs) else Trust.CERTIFIED,
        bound=min(bounds) if len(bounds) == len(proofs) else None,
        certificate=merged([proof.certificate for proof in proofs]),
    )


def _replayed(witnesses: Sequence[Witness], consistent: bool) -> Verdict:
    """A violation, unless the replay contradicts what was read from the ONNX files."""
    if not consistent:
        return Unknown(Reason.REPLAY_DIFFERS)
    return Violated(witnesses[0], tuple(witnesses[1:]))
