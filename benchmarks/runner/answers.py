"""What a program's output says: one word of ours, and for ``sat`` the witness as it wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass

from conspec.benchmarks.runner.process import Ended
from conspec.benchmarks.runner.recipe import WORDS

_DETAIL = 300  # characters of a foreign message that are kept


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program answered; see `store.Found`."""

    answer: str
    detail: str = ""
    witness: str | None = None


def read_answer(
    ended: Ended, output: str, truncated: bool, words: Mapping[str, str] = WORDS
) -> Answer:
    """The answer of a program that has ended.

    Whatever it printed before it was stopped or crashed is no answer, since it was not done. An
    exit code other than 0 is not looked at if there is an answer: tools give them meanings.

    Args:
        ended: how it ended.
        output: the text with its answer.
        truncated: the text goes on and was cut.
        words: its words for the answers.
    """
    first, _, rest = output.lstrip().partition("\n")
    said = words.get(first.strip().lower(), words.get(first.strip()))
    before = f" after it had said {said}" if said in ("sat", "unsat") else ""
    match ended.why:
        case "timeout":
            return Answer("timeout", before.strip())
        case "memory":
            return Answer("memory", before.strip())
        case "start-failed":
            return Answer("error", f"did not start: {_line(ended.stderr)}")
    if ended.code is not None and ended.code < 0:
        return Answer("error", _joined(f"ended by signal {-ended.code}{before}", ended))
    if said is None:
        return _no_answer(ended, first)
    if said == "sat":
        if truncated:
            return Answer("sat", "the witness is too long to be kept")
        return Answer("sat", witness=rest.strip() or None)
    return Answer(said, _line(ended.stderr) if said == "error" else "")


def _no_answer(ended: Ended, first: str) -> Answer:
    """An error if the program says that it failed, else garbage."""
    shown = f"its first line is {clean(first[:80])!r}" if first.strip() else "it printed nothing"
    if ended.code:
        return Answer("error", _joined(f"exit code {ended.code}", ended, shown))
    return Answer("garbage", shown)


def _joined(what: str, ended: Ended, otherwise: str = "") -> str:
    """What happened, and what standard error says of it."""
    return "; ".join(part for part in (what, _line(ended.stderr) or otherwise) if part)


def _line(stderr: str) -> str:
    """The last line of what was written to standard error."""
    lines = stderr.strip().splitlines()
    return clean(lines[-1].strip()[-_DETAIL:]) if lines else ""


def clean(text: str) -> str:
    """Text that can be stored and shown: unprintable characters are replaced.

    >>> clean("a\\x1b[0m\\ud800")
    'a�[0m�'
    """
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
