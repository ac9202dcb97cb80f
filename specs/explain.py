"""What lark's syntax errors mean, in words."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lark import Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from conspec.specs.errors import SpecSyntaxError
from conspec.specs.names import RESERVED, SHOWN_LENGTH
from conspec.specs.source import Source, nearest

# How to call each token; in the order in which an error lists them.
_WORDS = {
    "SPEC": "'spec'",
    "FORALL": "'forall'",
    "PROBABILITY": "'probability'",
    "IN": "'in'",
    "WITH": "'with'",
    "CONFIDENCE": "'confidence'",
    "FOR": "'for'",
    "COLON": "':'",
    "RPAR": "')'",
    "RSQB": "']'",
    "COMMA": "','",
    "NAME": "a name",
}
_OPERATORS = {"AND", "OR", "IMPLIES", "IFF", "RELATION", "SIGN", "TIMES"}

_HINTS = {
    "=": "there is no equality; two comparisons with >= and <= say the same",
    "^": "write 'and' for a conjunction",
}


@dataclass(frozen=True, slots=True)
class _Position:
    line: int | None
    column: int | None


def explain(error: UnexpectedInput, source: Source) -> SpecSyntaxError:
    """Returns our error for one of lark's."""
    if isinstance(error, UnexpectedToken):
        return _unexpected_token(error, source)
    place = _Position(error.line, error.column)
    if not isinstance(error, UnexpectedCharacters):
        return source.syntax_error(place, "this is not Con_spec")
    char = str(error.char)
    if char in "\"'":
        return source.syntax_error(place, "this quote is not closed on its line")
    return source.syntax_error(place, f"unexpected character {char!r}", _HINTS.get(char, ""))


def _unexpected_token(error: UnexpectedToken, source: Source) -> SpecSyntaxError:
    token, parser = error.token, error.interactive_parser
    if parser is None:
        return source.syntax_error(token, f"unexpected {_found(token)}")
    accepted: set[str] = parser.accepts()  # type: ignore[no-untyped-call]  # lark has no type
    stack = [_kind(value) for value in parser.parser_state.value_stack]
    expected = _in_words(accepted, _operand(stack))
    if token.type == "$END":
        place = _Position(token.end_line or token.line, token.end_column or token.column)
        return source.syntax_error(place, f"expected {expected}, but the text ends here")
    hint = _hint(token, accepted, stack)
    return source.syntax_error(token, f"expected {expected}, found {_found(token)}", hint)


def _kind(value: object) -> str:
    """Returns the name of a token or rule on the parser's stack."""
    if isinstance(value, Token):
        return value.type
    return str(value.data) if isinstance(value, Tree) else ""


def _operand(stack: Sequence[str]) -> str:
    """Says what an expression would be here, from the nearest part of a spec before it."""
    for kind in reversed(stack):
        match kind:
            case "COLON" | "header":
                break
            case "FORALL" | "forall":
                return "a region"
            case "FOR" | "probability":
                return "class(NAME) or all"
            case "PROBABILITY":
                return "a number"
    return "a formula"


def _hint(token: Token, accepted: Collection[str], stack: Sequence[str]) -> str:
    if token in RESERVED and "NAME" in accepted:
        return f"'{token}' is a word of the language; as a name it needs quotes: \"{token}\""
    if token.type == "NAME" and "NAME" not in accepted:
        best = nearest(token, [word.lower() for word in RESERVED if word.upper() in accepted])
        if best is not None:
            return f"did you mean '{best}'?"
        if stack and stack[-1] in ("NAME", "name"):
            return "a name with blanks needs quotes"
        if not stack:
            return "a suite consists of specs: spec NAME: forall x in REGION: FORMULA"
    return _HINTS.get(token, "")


def _found(token: Token) -> str:
    """Shows a token, which may be long or hold what a terminal would act on."""
    text = "".join(char if char.isprintable() else " " for char in token[:SHOWN_LENGTH])
    return text if token.type == "QUOTED" else f"'{text}'"


def _in_words(accepted: Collection[str], operand: str) -> str:
    """Lists what may come; ``operand`` says what an expression would be."""
    if "NUMBER" in accepted:
        words = [operand, "')'"] if "RPAR" in accepted else [operand]
    else:
        words = [word for kind, word in _WORDS.items() if kind in accepted]
        if not _OPERATORS.isdisjoint(accepted):
            words.append("an operator")
    if "$END" in accepted:
        words.append("the end of the text")
    # After a name a call is possible, but nobody who meets an error there meant one.
    words = words or ["'('"]
    return f"{', '.join(words[:-1])} or {words[-1]}" if words[1:] else words[0]
