"""What the tests of several commands share."""

import json
from pathlib import Path
from typing import Any


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def estimates_schema() -> dict[str, Any]:
    """The JSON Schema of a line of an estimates file."""
    path = Path(__file__).parent.parent / "report" / "estimates.schema.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
