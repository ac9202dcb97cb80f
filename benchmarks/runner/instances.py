"""The instances of a benchmark folder, ours or anyone's.

Ours has a ``suite.json``. Others follow VNN-COMP: an ``instances.csv`` with lines
``onnx,vnnlib,timeout``, at the root or in ``1.0/`` and ``2.0/``, which then hold the same
instances in the same order. Files may be gzipped. Nothing outside the folder is ever read.
"""

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conspec.specs.errors import BadFile

FORMATS = ("onnx", "vnnlib1", "vnnlib2", "onnx2", "smt2", "mps", "lp", "spec", "lens")
"""``onnx2`` is the network of ``vnnlib2``; ``smt2``, ``mps`` and ``lp`` hold it themselves.

``spec`` is a ``.conspec`` file with a spec of the instance's name, and ``lens`` the manifest of the
lens bundle that it is about. The manifest has the SHA-256 of each file of the bundle, so that a
suite's hash, which is of the manifest's bytes, stands for all of them.
"""
ANSWERS = ("sat", "unsat")
SECONDS = 60.0
"""The time limit of an instance that has none."""
_MOST_BYTES = 64 << 20
_MOST_INSTANCES = 100_000
_SUFFIXES = {"onnx": ".onnx", "vnnlib": ".vnnlib"}
_VERSION_2 = re.compile(r"\(\s*vnnlib-version\s*<?\s*2")
_HEAD_BYTES = 1 << 16
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Instance:
    """One question.

    Attributes:
        name: unique in its suite.
        family: what its suite calls its kind.
        files: by format (`FORMATS`); a name that ends in ``.gz`` is of a gzipped file.
        seconds: the time limit that its suite gives.
        truth: ``sat`` or ``unsat`` where the suite knows it, else None.
        evidence: what that rests on.
        left_out: why it lacks files, by what its suite calls them.
    """

    name: str
    family: str
    files: Mapping[str, Path]
    seconds: float
    truth: str | None
    evidence: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BenchSuite:
    """Instances of a folder; ``hash`` is of their names and of the bytes of their files."""

    name: str
    instances: tuple[Instance, ...]
    hash: str


def read_suite(place: Path) -> BenchSuite:
    """Read a folder, or the ``instances.csv`` or ``suite.json`` of one.

    Raises:
        BadFile: something is missing, not understood, or leads out of the folder; the message
            names the file and the line.
    """
    root = place if place.is_dir() else place.parent
    tables = _tables(place)
    if (root / "suite.json").is_file() and (place.is_dir() or place.name == "suite.json"):
        name, instances = _ours(root)
    elif tables:
        name, instances = root.resolve().name or "suite", _competition(root, tables)
    else:
        raise BadFile(
            f"{place}: no benchmark here: neither suite.json nor instances.csv, at the root or "
            "in 1.0/ or 2.0/"
        )
    if not instances:
        raise BadFile(f"{place}: the benchmark has no instances")
    if len(instances) > _MOST_INSTANCES:
        raise BadFile(f"{place}: more than {_MOST_INSTANCES} instances")
    known = _truths(root, {instance.name for instance in instances})
    told = [replace(i, truth=known[i.name][0], evidence=known[i.name][1])
            if i.name in known else i for i in instances]  # fmt: skip
    return BenchSuite(name, tuple(told), _hash(told))


def _tables(place: Path) -> list[Path]:
    """The lists of instances, in the order of their versions."""
    if not place.is_dir():
        return [place] if place.suffix == ".csv" and place.is_file() else []
    root = place / "instances.csv"
    found = [root] if root.is_file() else [place / v / "instances.csv" for v in ("1.0", "2.0")]
    return [path for path in found if path.is_file()]


def _ours(root: Path) -> tuple[str, list[Instance]]:
    path = root / "suite.json"
    try:
        document = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list):
        raise BadFile(f"{path}: expected an object with a list 'instances'")
    instances = []
    for number, entry in enumerate(document["instances"]):
        where = f"{path}: instance {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("files"), dict):
            raise BadFile(f"{where}: expected an object with 'name' and 'files'")
        files = {}
        for kind, name in entry["files"].items():
            if kind in FORMATS:  # others, such as the exact rationals, are not for solvers
                files[kind] = _inside(root, root, _word(name, where), where)
        if "lens" in files and files["lens"].name != "manifest.json":
            raise BadFile(f"{where}: 'lens' is not the manifest.json of a lens bundle")
        seconds = _seconds(entry.get("seconds", SECONDS), where)
        name, family = _word(entry.get("name"), where), _word(entry.get("family", "–"), where)
        left_out = _left_out(entry.get("left_out", {}), where)
        instances.append(Instance(name, family, files, seconds, None, left_out=left_out))
    names = [instance.name for instance in instances]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadFile(f"{path}: two instances are called {twice!r}")
    return _word(document.get("name", root.resolve().name or "suite"), str(path)), instances


def _left_out(value: Any, where: str) -> dict[str, str]:
    """Reasons by format."""
    if not isinstance(value, dict):
        raise BadFile(f"{where}: 'left_out': expected an object with reasons")
    return {kind: _word(reason, where) for kind, reason in value.items()}


def _competition(root: Path, tables: list[Path]) -> list[Instance]:
    """The instances of one table, or of two that hold the same ones."""
    rows = [list(_rows(path, root)) for path in tables]
    if len({len(found) for found in rows}) > 1:
        raise BadFile(
            f"{root}: 1.0/instances.csv has {len(rows[0])} instances and 2.0/instances.csv "
            f"{len(rows[1])}; they must list the same ones in the same order"
        )
    instances: list[Instance] = []
    taken: dict[str, int] = {}
    for number, same in enumerate(zip(*rows, strict=True), start=1):
        files: dict[str, Path] = {}
        for found, _ in same:
            if twice := files.keys() & found.keys():
                raise BadFile(
                    f"{root}: instance {number} of both lists is of the same version: "
                    f"{', '.join(sorted(twice))}"
                )
            files |= found
        name = _name(same[0][0], taken)
        instances.append(Instance(name, root.resolve().name or "–", files, same[0][1], None))
    return instances


def _name(files: Mapping[str, Path], taken: dict[str, int]) -> str:
    """The property's name without its endings; numbered if it is taken."""
    path = files.get("vnnlib1") or files["vnnlib2"]
    base = path.name.removesuffix(".gz").removesuffix(".vnnlib")
    name = base
    while name in taken:
        taken[base] += 1
        name = f"{base}-{taken[base]}"
    taken[name] = 1
    return name


def _rows(table: Path, root: Path) -> Iterator[tuple[dict[str, Path], float]]:
    """The files and the time limit of each line of an ``instances.csv``."""
    lines = _text(table).splitlines()
    first = True
    for number, line in enumerate(lines, start=1):
        where = f"{table}:{number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = _fields(line, where)
        header, first = first and not any("." in field for field in fields[:2]), False
        if header:
            continue
        if not 2 <= len(fields) <= 3:
            raise BadFile(
                f"{where}: expected onnx,vnnlib,timeout, but there are {len(fields)} fields"
            )
        onnx, prop = (
            _file(table.parent, root, name, kind, where)
            for name, kind in zip(fields, ("onnx", "vnnlib"), strict=False)
        )
        seconds = _seconds(fields[2], where) if fields[2:] and fields[2] else SECONDS
        two = _VERSION_2.search(file_head(prop)) is not None
        yield {"onnx2" if two else "onnx": onnx, "vnnlib2" if two else "vnnlib1": prop}, seconds


def _file(folder: Path, root: Path, name: str, kind: str, where: str) -> Path:
    if not name.removesuffix(".gz").endswith(_SUFFIXES[kind]):
        raise BadFile(
            f"{where}: {name[:80]!r} is not one {_SUFFIXES[kind]} file; instances of several "
            "networks are not supported"
        )
    return _inside(folder, root, name, where)


def _inside(folder: Path, root: Path, name: str, where: str) -> Path:
    """The file of that name, or its gzipped form, which must not lie outside the root."""
    if "\0" in name or Path(name).is_absolute():
        raise BadFile(f"{where}: {name[:80]!r} is not a relative path")
    other = name.removesuffix(".gz") if name.endswith(".gz") else name + ".gz"
    for path in (folder / name, folder / other):
        try:
            if not path.resolve().is_relative_to(root.resolve()):
                raise BadFile(f"{where}: {name[:80]!r} leads out of {root}")
            if path.is_file():
                return path
        except (OSError, RuntimeError) as error:  # a loop of links, a name too long
            raise BadFile(f"{where}: {name[:80]!r}: {error}") from error
    raise BadFile(f"{where}: there is no file {name[:200]!r} in {folder}")


def _truths(root: Path, names: set[str]) -> dict[str, tuple[str, str]]:
    """Answer and evidence of the instances whose truth a side file tells."""
    known: dict[str, tuple[str, str]] = {}
    if (path := root / "truth.jsonl").is_file():
        for number, line in enumerate(_lines(path), start=1):
            if line.strip():
                _add(known, *_told(line, f"{path}:{number}"), f"{path}:{number}")
    elif (path := root / "expected.csv").is_file():
        for number, line in enumerate(_lines(path), start=1):
            fields = _fields(line, f"{path}:{number}")
            if not any(fields) or fields[0].startswith("#"):
                continue
            if number == 1 and fields == ["instance", "answer"]:
                continue
            if len(fields) != 2:
                raise BadFile(f"{path}:{number}: expected instance,answer")
            _add(known, fields[0], fields[1], path.name, f"{path}:{number}")
    if unknown := known.keys() - names:
        raise BadFile(f"{path}: {min(unknown)[:80]!r} is no instance of this benchmark")
    return {name: value for name, value in known.items() if value[0] in ANSWERS}


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file that may be large as a whole: certificates stand in some."""
    try:
        with path.open("rb") as file:
            while data := file.readline(_MOST_BYTES + 1):
                if len(data) > _MOST_BYTES:
                    raise BadFile(f"{path}: a line is longer than {_MOST_BYTES >> 20} MiB")
                yield data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: not UTF-8 text: {error}") from error
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error


def _fields(line: str, where: str) -> list[str]:
    """The stripped values of a line of a CSV file."""
    try:
        return [field.strip() for field in next(csv.reader([line], skipinitialspace=True), [])]
    except csv.Error as error:
        raise BadFile(f"{where}: not a line of comma-separated values: {error}") from error


def _told(line: str, where: str) -> tuple[str, str, str]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{where}: not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise BadFile(f"{where}: expected an object with 'instance' and 'truth'")
    name = entry.get("instance", entry.get("name"))
    truth = entry.get("truth", entry.get("answer"))
    evidence = entry.get("evidence", "")
    if isinstance(evidence, dict):
        evidence = str(evidence.get("kind", ""))
    return _word(name, where), "unknown" if truth is None else _word(truth, where), str(evidence)


def _add(
    known: dict[str, tuple[str, str]], name: str, truth: str, evidence: str, where: str
) -> None:
    if truth not in (*ANSWERS, "unknown"):
        raise BadFile(f"{where}: the answer is {truth[:40]!r}, not sat, unsat or unknown")
    if known.setdefault(name, (truth, evidence))[0] != truth:
        raise BadFile(f"{where}: {name[:80]!r} is said to be both sat and unsat")


def _word(value: Any, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 1000:
        raise BadFile(f"{where}: expected a name or path, not {str(value)[:80]!r}")
    return value


def _seconds(value: Any, where: str) -> float:
    try:
        seconds = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError, OverflowError):
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise BadFile(f"{where}: {str(value)[:40]!r} is not a time limit in seconds")
    return seconds


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise BadFile(f"{path}: larger than {_MOST_BYTES >> 20} MiB")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: not UTF-8 text: {error}") from error
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error


def file_head(path: Path) -> str:
    """The beginning of a property, without comments.

    Raises:
        BadFile: it cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read(_HEAD_BYTES).decode("utf-8", errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(f"{path}: cannot be read: {error}") from error
    return re.sub(r";[^\n]*", "", text)


def _hash(instances: list[Instance]) -> str:
    """SHA-256 over names, formats and bytes; a file that several instances share is read once."""
    known: dict[Path, str] = {}
    total = hashlib.sha256()
    for instance in instances:
        for kind, path in sorted(instance.files.items()):
            if path not in known:
                known[path] = file_hash(path)
            total.update(json.dumps([instance.name, kind, known[path]]).encode())
    return total.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        BadFile: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    return digest.hexdigest()
