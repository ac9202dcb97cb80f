"""Whether an exact point lies in the image of a cube, ball or simplex, exactly.

``p`` lies in ``{ c + s·G·t : t in T }`` if some t of T has ``G·t = v`` with ``v = (p − c) / s``.
Three arguments are tried, from cheap to dear, and each one is a proof:

* Outside: a direction d with ``d·v > max d·G·t`` over T, in rational arithmetic.
* Either way: t enclosed by a float64 solution with a rigorous error bound, and refined
  (``enclosure``). Points that are not on the border end here.
* On the border: the equations solved in integers (``tableau``). What that says is then checked,
  as a solution or as a separating direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from conspec.encodings.enclosure import is_zero, judged, residual
from conspec.encodings.exact import Vector, from_array, matrix_product, rational, vector, zeros
from conspec.encodings.images import Shape, in_shape, shape_maximum
from conspec.encodings.rounding import Floats
from conspec.encodings.tableau import Bounds, Conflict, Feasible, solve_within

if TYPE_CHECKING:
    from conspec.encodings.images import Image

Places = NDArray[np.intp]
MOST_WORK = 10**6
"""Entries times rows of the largest system that is solved in integers."""
MOST_PIVOTS = 200
"""Exchanges in such a system after which it is given up."""
MOST_ADDED = 20
"""Samples of a hull that are added to those which a linear program found."""
ZOOMS = 4
"""Linear programs, each at the scale of what the one before left."""
FAR = 1e9
"""Bounds farther away than this, in units of what is missing, are left out."""
LOOSE = 1e-7
"""Parameters farther than this from their bounds are taken for basic ones, as a first guess."""


class Undecided(ArithmeticError):
    """A point is so near to the border of so large a region that exact arithmetic is too slow."""


def image_contains(image: "Image", point: Vector) -> bool:
    """Whether an exact point lies in the region, border included; exactly.

    Raises:
        Undecided: only exact elimination could tell, and the system is too large for it.
    """
    offset = point.plus(image.center.scaled(-1))
    if image.scale == 0:
        return not any(offset.numerators)
    system = _System(image, offset.scaled(1 / image.scale))
    if image.shape is not Shape.SIMPLEX and is_zero(offset):
        return True
    if image.shape is not Shape.SIMPLEX and _is_diagonal(image.generators):
        return _in_diagonal(system)
    if _beyond_bounds(system):
        return False
    found = _by_enclosure(system)
    if found is None and image.shape is Shape.BALL:
        found = _ball_by_elimination(system)
    elif found is None:
        found = _by_programs(system)
    if found is not None:
        return found
    raise Undecided(
        f"whether the point lies in a region of {image.dimension} dimensions and "
        f"{image.parameters} parameters cannot be decided: it is too near to the border"
    )


@dataclass(frozen=True, eq=False)
class _System:
    """The question ``G·t = goal`` for t in T.

    Attributes:
        image: the region.
        goal: v [n].
    """

    image: "Image"
    goal: Vector

    @property
    def shape(self) -> Shape:
        """T."""
        return self.image.shape

    @property
    def equations(self) -> tuple[Floats, Vector]:
        """Matrix [m, k] and right side [m]; for a simplex with the row ``Σ t = 1``."""
        if self.shape is not Shape.SIMPLEX:
            return self.image.generators, self.goal
        matrix = np.vstack([self.image.generators, np.ones(self.image.parameters)])
        below = self.goal.denominator
        return matrix, Vector((*self.goal.numerators, below), below)

    def separated(self, direction: Vector) -> bool:
        """Whether ``direction · goal`` exceeds ``direction · G · t`` on all of T, exactly."""
        ahead = direction.dot(self.goal)
        pulled = vector(direction.dot(column) for column in self.image.columns)
        if self.shape is not Shape.BALL:
            return ahead > shape_maximum(self.shape, pulled)[0]
        return ahead > 0 and ahead**2 > pulled.dot(pulled)

    def is_solution(self, parameters: Vector) -> bool:
        """Whether parameters of T give the goal, exactly."""
        if not in_shape(self.shape, parameters):
            return False
        return is_zero(residual(self.image.columns, parameters, self.goal))


# --- closed forms ----------------------------------------------------------------------------


def _is_diagonal(matrix: Floats) -> bool:
    """Whether only entries (i, i) of a square matrix differ from zero."""
    square = matrix.shape[0] == matrix.shape[1]
    return square and bool(np.count_nonzero(matrix) == np.count_nonzero(matrix.diagonal()))


def _in_diagonal(system: _System) -> bool:
    """The answer where each parameter has its own coordinate."""
    factors = from_array(system.image.generators.diagonal()).fractions()
    found = []
    for value, factor in zip(system.goal.fractions(), factors, strict=True):
        if not factor and value:
            return False
        found.append(value / factor if factor else value)  # 0 where the factor is
    return in_shape(system.shape, vector(found))


def _beyond_bounds(system: _System) -> bool:
    """Whether some coordinate alone puts the goal outside."""
    for row, value in zip(system.image.generators, system.goal.fractions(), strict=True):
        entries = from_array(row)
        highest, _ = shape_maximum(system.shape, entries)
        lowest, _ = shape_maximum(system.shape, entries.scaled(-1))
        if not -lowest <= value <= highest:
            return True
    return False


def _by_enclosure(system: _System) -> bool | None:
    """The answer where the parameters are determined: generators that are independent."""
    matrix, goal = system.equations
    used = np.flatnonzero(np.any(matrix != 0, axis=0))  # others leave their parameters at 0
    return judged(system.shape, matrix[:, used], goal) if len(used) <= len(matrix) else None


# --- linear programs -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Program:
    """What a linear program says.

    Attributes:
        direction: its dual [m], which may separate the point from the region.
        base: parameters [k] in their bounds, exactly at them where the solution is.
        basis: which parameters are strictly between their bounds.
    """

    direction: Floats
    base: Vector
    basis: Places


def _by_programs(system: _System) -> bool | None:
    """The answer for a cube or simplex: a vertex of the solutions, or a dual, shows it.

    Each program corrects what the one before left, scaled to size 1, so that it sees much
    smaller differences (iterative refinement, Gleixner, Steffy and Wolter, 2016).
    """
    matrix, goal = system.equations
    columns = [from_array(column) for column in matrix.T]
    size = system.image.parameters
    program = _Program(np.zeros(0), zeros(size), np.zeros(0, dtype=np.intp))
    for _ in range(ZOOMS):
        rest = residual(columns, program.base, goal)
        if is_zero(rest) and in_shape(system.shape, program.base):
            return True
        following = _solved_program(system.shape, matrix, rest, program.base)
        if following is None:
            break
        program = following
        if system.separated(from_array(program.direction[: system.image.dimension])):
            return False
        if _holds_on(system, columns, program):
            return True
    return _by_elimination(system, program)


def _holds_on(system: _System, columns: Sequence[Vector], program: _Program) -> bool:
    """Whether moving only the basic parameters gives a solution in T."""
    matrix, goal = system.equations
    if not 0 < len(program.basis) <= len(matrix):
        return False
    moving = set(program.basis.tolist())
    fixed = [0 if j in moving else top for j, top in enumerate(program.base.numerators)]
    rest = residual(columns, Vector(tuple(fixed), program.base.denominator), goal)
    return judged(system.shape, matrix[:, program.basis], rest) is True


def _solved_program(shape: Shape, matrix: Floats, rest: Vector, base: Vector) -> _Program | None:
    """Minimises ``Σ |rest − G·δ|`` for ``base + δ`` in T with HiGHS; None when it fails."""
    from scipy.optimize import linprog

    exponents = np.frexp(np.abs(matrix).max(axis=1))[1]
    rows = np.ldexp(matrix, -exponents[:, None])
    units = [Fraction(2) ** -int(exponent) for exponent in exponents]
    sides = vector(value * unit for value, unit in zip(rest.fractions(), units, strict=True))
    largest = max(map(abs, sides.numerators))
    unit = Fraction(2) ** (largest.bit_length() - sides.denominator.bit_length())
    low = Fraction(-1 if shape is Shape.CUBE else 0)
    places = base.fractions()
    bounds = np.array([(_reach(low - place, unit), _reach(1 - place, unit)) for place in places])
    height, width = rows.shape
    slack = np.eye(height)
    answer = linprog(
        np.repeat([0.0, 1.0], [width, 2 * height]),
        A_eq=np.hstack([rows, slack, -slack]),
        b_eq=sides.scaled(1 / unit).floats(),
        bounds=np.vstack([bounds, np.tile([0.0, np.inf], (2 * height, 1))]),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9},
    )
    if answer.status != 0:
        return None
    found = np.asarray(answer.x[:width], dtype=np.float64)
    is_low, is_high = found <= bounds[:, 0] + LOOSE, found >= bounds[:, 1] - LOOSE
    moved = [
        place + unit * Fraction(step) for place, step in zip(places, found.tolist(), strict=True)
    ]
    for j, value in enumerate(moved):
        moved[j] = low if is_low[j] else Fraction(1) if is_high[j] else value
    direction = np.ldexp(answer.eqlin.marginals, -exponents)
    return _Program(direction, vector(moved), np.flatnonzero(~is_low & ~is_high))


def _reach(distance: Fraction, unit: Fraction) -> float:
    """A distance in a unit; infinite where the solver would lose what matters beside it."""
    found = distance / unit
    return float(found) if abs(found) < FAR else np.copysign(np.inf, 1 if found > 0 else -1)


# --- elimination -----------------------------------------------------------------------------


def _by_elimination(system: _System, guess: _Program) -> bool | None:
    """The answer for a cube or simplex in integers; None if that takes too long."""
    size = system.image.parameters
    chosen = np.arange(size)
    if system.shape is Shape.SIMPLEX:
        chosen = np.flatnonzero(np.array(guess.base.numerators, dtype=object) > 0)
    # A hull of thousands of samples has few near any point: add those that a direction meets.
    for _ in range(MOST_ADDED):
        answer = _by_columns(system, chosen, guess)
        if not isinstance(answer, Vector):
            return answer
        pulled = [answer.dot(column) for column in system.image.columns]
        best = max(range(size), key=pulled.__getitem__)
        if best in chosen:
            return None
        chosen = np.append(chosen, best)
    return None


def _by_columns(system: _System, chosen: Places, guess: _Program) -> bool | Vector | None:
    """The answer with some of the columns; a direction if it separates only from those."""
    matrix, goal = system.equations
    columns = [from_array(column) for column in matrix[:, chosen].T]
    if len(goal) ** 2 * len(columns) > MOST_WORK:
        return None
    # x_j = t_j / denominator_j, so that the entries are integers.
    table = [[column.numerators[row] for column in columns] for row in range(len(goal))]
    shares = [Fraction(1, column.denominator) for column in columns]
    low = -1 if system.shape is Shape.CUBE else 0
    bounds = [Bounds(low * share, share) for share in shares]
    start = [guess.base.numerators[column] > 0 for column in chosen]
    basis = [place for place, column in enumerate(chosen) if column in guess.basis]
    match solve_within(table, goal.fractions(), bounds, start, basis, MOST_PIVOTS):
        case None:
            return None
        case Feasible(values):
            parameters = [Fraction(0)] * system.image.parameters
            for place, value, column in zip(chosen, values, columns, strict=True):
                parameters[place] = value * column.denominator
            return True if system.is_solution(vector(parameters)) else None
        case Conflict(direction):
            found = Vector(tuple(direction[: system.image.dimension]))
            return False if system.separated(found) else found


def _ball_by_elimination(system: _System) -> bool | None:
    """The least ``t·t`` with ``G·t = v`` is ``y·v`` where ``G·Gᵀ·y = v``."""
    matrix = system.image.generators
    if len(matrix) ** 3 > MOST_WORK:
        return None
    gram = rational(matrix_product(matrix, matrix.T))
    rows = [vector(row) for row in gram.tolist()]
    goal = [
        value * row.denominator for value, row in zip(system.goal.fractions(), rows, strict=True)
    ]
    free = [Bounds()] * len(rows)
    table = [row.numerators for row in rows]
    basis = range(len(rows))
    match solve_within(table, goal, free, [False] * len(rows), basis, MOST_PIVOTS):
        case None:
            return None
        case Feasible(values):
            direction = vector(values)
            pulled = [direction.dot(column) for column in system.image.columns]
            if system.is_solution(vector(pulled)):
                return True
        case Conflict(found):
            direction = vector(
                Fraction(top * row.denominator) for top, row in zip(found, rows, strict=True)
            )
    return False if system.separated(direction) else None
