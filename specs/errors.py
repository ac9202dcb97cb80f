"""The errors conspec raises on purpose.

Every one of them ends a command with exit code 3 and one clear line: what was expected, what
came, where, and what to do. Anything else that escapes is a defect of ours.
"""


class ConspecError(Exception):
    """Base of all errors that are the input's fault, not ours."""


class BadFile(ConspecError, ValueError):
    """A file cannot be read, is damaged, or does not say what its format demands."""


class UnsupportedOperator(BadFile):
    """An ONNX node, attribute or shape that the exact reader does not understand."""


class SpecSyntaxError(ConspecError, ValueError):
    """A Con_spec text does not parse; the message shows file, line, column and a caret."""


class UnknownName(ConspecError, LookupError):
    """A class, concept, image or region name that the bundle does not have."""


class BadRegion(ConspecError, ValueError):
    """A region that cannot be built: wrong dimension, negative scale, missing statistics."""


class MissingSolver(ConspecError, RuntimeError):
    """A solver or its licence is absent; the message says how to get it or do without."""


class BadUsage(ConspecError, ValueError):
    """Arguments that do not fit together."""
