"""A query for z3: exact rationals, any Boolean structure, ReLU as if-then-else.

Written naively, a dense query in 512 dimensions takes z3 several seconds: its simplex multiplies
rationals with 50-bit numerators and denominators until they have thousands of bits. Three things
are done about that, none of which gives up exactness:

* The variables are the region's parameters t (for a box ``z = c + r·t``), so the region's bounds
  are the numbers ±1.
* A half-space is first written with short coefficients (12 bits). What the rounding changes is at
  most the sum of the changes, because ``|t| ≤ 1``; the constant is raised by it. The short query
  therefore has every solution of the exact one: "unsat" is a proof. A model of it is checked
  exactly, and only if it fails are more bits used, at last all of them.
* Queries over one region share the solver; each literal's dense row is asserted once.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from conspec.encodings.constraints import tangent
from conspec.encodings.exact import Vector, vector
from conspec.encodings.images import Shape
from conspec.encodings.query import fold
from conspec.encodings.regions import ConvexRegion
from conspec.encodings.scores import ScoreSpace
from conspec.specs.rewrite import Halfspace, Literal, Nnf

if TYPE_CHECKING:
    import z3

PRECISIONS = (12, 28, None)
"""Bits of the coefficients, tried in this order; None is exact."""


class SmtSession:
    """All queries of one region in one z3 solver."""

    def __init__(self, space: ScoreSpace, region: ConvexRegion) -> None:
        """Declare the coordinates and, for a ReLU head, its neurons."""
        import z3

        self._z3 = z3
        self._space = space
        self._region = region
        self._solver = z3.SolverFor("QF_LRA")
        self._parameters = [z3.Real(f"t{i}") for i in range(region.parameters)]
        simplex = region.shape is Shape.SIMPLEX
        for parameter in self._parameters:
            self._solver.add(parameter >= (0 if simplex else -1), parameter <= 1)
        if simplex:
            self._solver.add(z3.Sum(self._parameters) == 1)
        self._last = self._hidden_layers()
        self._literals: dict[tuple[Halfspace, int | None], Any] = {}

    def check(self, violation: Nnf, bits: int | None, seconds: float) -> tuple[str, Vector | None]:
        """Whether some point of the region satisfies the violation.

        ``has`` literals are taken as true, and a ball as the cube around it, less what was cut
        off; so "unsat" stays valid.

        Args:
            violation: a formula in negation normal form.
            bits: bits of the coefficients, None for exact ones.
            seconds: time limit.

        Returns:
            "sat", "unsat" or "unknown"; with "sat" exact parameters, which have to be checked.
        """
        z3 = self._z3

        def leaf(literal: Literal) -> Any:
            return self._literal(literal, bits) if isinstance(literal, Halfspace) else True

        def join(count: int, parts: list[Any]) -> Any:
            if count >= len(parts):
                return z3.And(parts) if count == len(parts) else False
            return z3.Or(parts) if count == 1 else z3.AtLeast(*parts, count)

        condition = fold(violation, leaf, join)
        self._solver.set("timeout", max(1, int(seconds * 1000)))
        self._solver.push()
        try:
            self._solver.add(condition)
            word = str(self._solver.check())
            return word, self._point(self._solver.model()) if word == "sat" else None
        finally:
            self._solver.pop()

    def _literal(self, literal: Halfspace, bits: int | None) -> Any:
        """The literal as a condition on its own variable, which its dense row defines."""
        key = (literal, bits)
        if key not in self._literals:
            terms, constant = self._row(literal, bits)
            value = self._z3.Real(f"literal{len(self._literals)}")
            self._solver.add(value == terms)
            # Scaling by a positive number keeps the sign, and the constant out of the tableau.
            bound = self._rational(-constant)
            self._literals[key] = value > bound if literal.strict else value >= bound
        return self._literals[key]

    def _row(self, literal: Halfspace, bits: int | None) -> tuple[Any, Fraction]:
        """Linear term and constant whose sum is the literal's value, or at least that."""
        weights, constant = self._space.row(literal)
        size = self._space.dimension
        embedding = Vector(weights.numerators[:size], weights.denominator)
        pulled, constant = self._region.pull(embedding, constant)
        factors = pulled.fractions()
        if bits is not None and not self._last:
            factors, change = shortened(factors, bits)
            constant += change
        hidden = Vector(weights.numerators[size:], weights.denominator).fractions()
        return self._sum([*factors, *hidden], [*self._parameters, *self._last]), constant

    def _hidden_layers(self) -> list[Any]:
        """The neurons of the last hidden layer; none for an affine head."""
        inputs: list[Any] = []
        for depth, layer in enumerate(self._space.head.affines[:-1]):
            neurons = []
            for index in range(layer.outputs):
                weights, bias = layer.row(index)
                if depth == 0:
                    weights, bias = self._region.pull(weights, bias)
                    before = self._sum(weights.fractions(), self._parameters)
                    before = before + self._rational(bias)
                else:
                    before = self._sum(weights.fractions(), inputs) + self._rational(bias)
                neuron = self._z3.Real(f"h{depth}_{index}")
                self._solver.add(neuron == self._z3.If(before > 0, before, 0))
                neurons.append(neuron)
            inputs = neurons
        return inputs

    def _sum(self, factors: Sequence[Fraction], variables: Sequence[Any]) -> Any:
        """``Σ factor · variable``."""
        terms = [
            self._rational(factor) * variable
            for factor, variable in zip(factors, variables, strict=True)
            if factor
        ]
        return self._z3.Sum(terms) if terms else self._rational(Fraction(0))

    def _rational(self, value: Fraction) -> Any:
        return self._z3.Q(value.numerator, value.denominator)

    def _point(self, model: "z3.ModelRef") -> Vector:
        """The parameters that a model denotes, exactly."""
        values = [model.eval(parameter, model_completion=True) for parameter in self._parameters]
        return vector(
            Fraction(value.numerator_as_long(), value.denominator_as_long()) for value in values
        )

    def cut(self, parameters: Vector) -> bool:
        """For a ball: cuts off parameters outside it by a tangent; whether there was need."""
        tops, bottom = parameters.numerators, parameters.denominator
        square = sum(top * top for top in tops)
        if self._region.shape is not Shape.BALL or square <= bottom**2:
            return False
        found = tangent(parameters)
        limit = self._rational(found.bound)
        self._solver.add(self._sum(found.row.fractions(), self._parameters) <= limit)
        return True


def shortened(factors: Sequence[Fraction], bits: int) -> tuple[list[Fraction], Fraction]:
    """Factors rounded to multiples of a power of two, and the sum of all changes.

    With ``|t_i| ≤ 1``, ``Σ factor·t ≤ Σ short·t + change``.
    """
    largest = max((abs(factor) for factor in factors), default=Fraction(0))
    if not largest:
        return list(factors), Fraction(0)
    # 2**exponent is within a factor of 2 of the largest entry.
    exponent = largest.numerator.bit_length() - largest.denominator.bit_length()
    unit = Fraction(2) ** (exponent - bits)
    short = [round(factor / unit) * unit for factor in factors]
    change = sum((abs(f - s) for f, s in zip(factors, short, strict=True)), Fraction(0))
    return short, change
