"""VNN-LIB files, read whole: what is not understood is refused by line, never dropped.

VNN-LIB 1.0 is SMT-LIB 2 over reals ``X_0 … X_{n−1}`` (inputs) and ``Y_0 … Y_{m−1}`` (outputs)
that states a counterexample. Read here: comments, ``declare-const`` and ``declare-fun`` in any
order, ``assert`` of any nesting of ``and or not => <= >= < > =`` (comparisons may be chains)
over linear terms, which ``+ - * /`` make of variables and exact decimals. Beyond SMT-LIB, as
benchmarks use them: signs and exponents in numbers, and ``and``/``or`` of one operand.

A file that begins with ``(vnnlib-version`` is left to ``vnnlib2_reader``.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Never

from conspec.encodings.decimals import parse_number
from conspec.encodings.sexpr import Sexp, bad, read_sexps, refuse_bare_returns
from conspec.encodings.vnnlib_property import Declared, Property
from conspec.specs import formula as f
from conspec.specs.errors import BadFile
from conspec.specs.linear import product, quotient, total

if TYPE_CHECKING:
    from conspec.encodings.vnnlib2_reader import BehindHidden

MOST_BYTES = 64 * 2**20
_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,7})")
_VERSION = re.compile(r"(?:\s|;[^\n]*+)*+\(\s*+vnnlib-version\b", re.ASCII)
_HIDDEN = re.compile(r"\(\s*declare-hidden\b", re.ASCII)
_COMMENT = re.compile(r";[^\n]*")
_RELATIONS = {
    "<=": f.Relation.LE,
    ">=": f.Relation.GE,
    "<": f.Relation.LT,
    ">": f.Relation.GT,
}
_WITHOUT_MEANING = ("set-logic", "set-info", "get-model", "exit")


def read_property(path: Path) -> Property:
    """The problem in a VNN-LIB file, also one compressed as ``.gz``.

    Raises:
        BadFile: it cannot be read, is too large, or says what is not understood; with the line.
        MissingSolver: the file is VNN-LIB 2.0 and the package ``vnnlib`` is absent.
    """
    text = _text(path)
    if _VERSION.match(text):
        from conspec.encodings.vnnlib2_reader import read_property2

        return read_property2(text, str(path))
    return read_property1(text, str(path))


def read_behind(path: Path) -> "BehindHidden | None":
    """What a VNN-LIB 2.0 file with a hidden tensor says of the network behind that tensor.

    None if the file declares no hidden tensor.

    Raises:
        BadFile: as `read_property`, or the query does not rest on one hidden tensor alone.
        MissingSolver: as `read_property`.
    """
    text = _text(path)
    if not _VERSION.match(text) or not _HIDDEN.search(_COMMENT.sub("", text)):
        return None
    from conspec.encodings.vnnlib2_reader import read_behind_hidden

    return read_behind_hidden(text, str(path))


def read_property1(text: str, source: str) -> Property:
    """The problem in a VNN-LIB 1.0 text.

    Raises:
        BadFile: it says what is not understood; with the line.
    """
    refuse_bare_returns(text, source)
    return _Reader(text, source).property()


def _text(path: Path) -> str:
    """The text of a file, unpacked."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadFile(f"{path}: damaged gzip file: {error}") from None
    except OSError as error:
        raise BadFile(f"{path}: the file cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise BadFile(f"{path}: larger than the limit {MOST_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: no UTF-8 text (byte {error.start})") from None


class _Reader:
    """One VNN-LIB 1.0 text."""

    def __init__(self, text: str, source: str) -> None:
        """Nothing is declared yet."""
        self._text = text
        self._source = source
        self._variables: dict[str, f.Linear] = {}
        self._numbers: dict[str, f.Linear] = {}
        self._asserted: list[f.Formula] = []
        self._checked = False

    def property(self) -> Property:
        """Everything that the text says."""
        for command in read_sexps(self._text, self._source):
            self._command(command)
        sizes = [self._size("X", "inputs"), self._size("Y", "outputs")]
        inputs, outputs = (Declared(n, "real", (s,)) for n, s in zip("XY", sizes, strict=True))
        condition = _all(self._asserted) if self._asserted else f.Constant(True)
        return Property("1.0", inputs, outputs, condition, source=self._source)

    def _refuse(self, node: Sexp, message: str) -> Never:
        raise bad(self._source, self._text, node.at, message)

    def _command(self, command: Sexp) -> None:
        match command:
            case ["declare-const", str(name), "Real"]:
                self._declare(command, name)
            case ["declare-fun", str(name), [], "Real"]:
                self._declare(command, name)
            case ["assert", body]:
                if self._checked:
                    self._refuse(command, "an assert after check-sat has no clear meaning here")
                self._asserted.append(self._formula(body, command))
            case ["check-sat"]:
                self._checked = True
            case [("declare-const" | "declare-fun") as word, *_]:
                self._refuse(command, f"write ({word} …) for a variable X_0 or Y_0 of sort Real")
            case ["assert", *_]:
                self._refuse(command, "an assert has one formula")
            case [str(word), *_] if word in _WITHOUT_MEANING:
                pass
            case [str(word), *_]:
                self._refuse(command, f"the command '{word[:40]}' is not understood")
            case _:
                self._refuse(command, "a command must begin with its name")

    def _declare(self, command: Sexp, name: str) -> None:
        found = _VARIABLE.fullmatch(name)
        if found is None:
            self._refuse(command, f"'{name[:40]}' is no name of a variable; they are X_0 and Y_0")
        if name in self._variables:
            self._refuse(command, f"{name} is declared twice")
        index = int(found[2])
        symbol = f.Coordinate(index) if found[1] == "X" else f.Logit(name)
        self._variables[name] = f.Linear(((Fraction(1), symbol),))

    def _size(self, letter: str, what: str) -> int:
        """How many inputs or outputs are declared, without a gap."""
        count = sum(name[0] == letter for name in self._variables)
        if count == 0:
            raise BadFile(f"{self._source}: no {what} {letter}_0, … are declared")
        for index in range(count):
            if f"{letter}_{index}" not in self._variables:
                raise BadFile(
                    f"{self._source}: {count} {what} are declared, but no {letter}_{index}"
                )
        return count

    def _formula(self, node: Sexp | str, inside: Sexp) -> f.Formula:
        """A Boolean expression."""
        match node:
            case "true" | "false":
                return f.Constant(node == "true")
            case [("and" | "or") as word, _, *_]:
                parts = [self._formula(part, node) for part in node[1:]]
                return _all(parts) if word == "and" else _any(parts)
            case ["not", part]:
                return f.Not(self._formula(part, node))
            case ["=>", _, _, *_]:
                *premises, conclusion = [self._formula(part, node) for part in node[1:]]
                for premise in reversed(premises):
                    conclusion = f.Implies(premise, conclusion)
                return conclusion
            case [("<=" | ">=" | "<" | ">" | "=") as word, _, _, *_]:
                terms = [self._term(part, node) for part in node[1:]]
                pairs = pairwise(terms)
                return _all([part for pair in pairs for part in _compared(word, *pair)])
            case [str(word), *_]:
                self._refuse(
                    node, f"'{word[:40]}' with {len(node) - 1} operands is no formula here"
                )
            case str(word):
                self._refuse(inside, f"'{word[:40]}' is no formula")
            case _:
                self._refuse(node, "a formula must begin with the name of its operator")

    def _term(self, node: Sexp | str, inside: Sexp) -> f.Linear:
        """A linear expression."""
        if isinstance(node, str):
            return self._atom(node, inside)
        match node:
            case [("+" | "-" | "*" | "/") as word, _, *_] if len(node) > 2 or word in "+-":
                terms = [self._term(part, node) for part in node[1:]]
            case [str(word), *_]:
                self._refuse(node, f"'{word[:40]}' with {len(node) - 1} operands is no number here")
            case _:
                self._refuse(node, "a number must begin with the name of its operator")
        try:
            return _OPERATIONS[word](terms)
        except ValueError as error:
            self._refuse(node, str(error))

    def _atom(self, word: str, inside: Sexp) -> f.Linear:
        """A variable or a number."""
        known = self._variables.get(word) or self._numbers.get(word)
        if known is not None:
            return known
        if _VARIABLE.fullmatch(word):
            self._refuse(inside, f"{word} is not declared before it is used")
        try:
            found = self._numbers[word] = f.Linear((), parse_number(word))
        except ValueError as error:
            self._refuse(inside, f"neither a variable nor a number: {error}")
        return found


def _sum(terms: Sequence[f.Linear]) -> f.Linear:
    return total((1, term) for term in terms)


def _difference(terms: Sequence[f.Linear]) -> f.Linear:
    """The first minus the others; of one operand, its negative."""
    first = [(1, terms[0])] if len(terms) > 1 else [(-1, terms[0])]
    return total([*first, *((-1, term) for term in terms[1:])])


def _product(terms: Sequence[f.Linear]) -> f.Linear:
    result = terms[0]
    for term in terms[1:]:
        if result.terms and term.terms:
            raise ValueError(
                "a product of two variables is not linear; conspec decides linear conditions only"
            )
        result = product(result, term)
    return result


def _quotient(terms: Sequence[f.Linear]) -> f.Linear:
    result = terms[0]
    for term in terms[1:]:
        if term.terms:
            raise ValueError(
                "a division by a variable is not linear; conspec decides linear conditions only"
            )
        result = quotient(result, term)
    return result


_OPERATIONS: dict[str, Callable[[Sequence[f.Linear]], f.Linear]] = {
    "+": _sum,
    "-": _difference,
    "*": _product,
    "/": _quotient,
}


def _compared(word: str, left: f.Linear, right: f.Linear) -> list[f.Formula]:
    """One link of a chain of comparisons."""
    relations = [f.Relation.LE, f.Relation.GE] if word == "=" else [_RELATIONS[word]]
    return [f.Compare(left, relation, right) for relation in relations]


def _all(parts: Sequence[f.Formula]) -> f.Formula:
    return parts[0] if len(parts) == 1 else f.And(tuple(parts))


def _any(parts: Sequence[f.Formula]) -> f.Formula:
    return parts[0] if len(parts) == 1 else f.Or(tuple(parts))
