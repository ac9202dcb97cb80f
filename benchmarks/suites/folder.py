"""A whole suite as a folder: a VNN-COMP submission, with SMT-LIB and MILP files and the answers.

==========================  ================================================================
``README.md``               what the suite is, for people who use it
``LICENSE``                 Apache-2.0
``generate_properties.py``  rewrites the instances for another seed
``suite.json``              every instance: name, family, files by format, time limit
``truth.jsonl``             the answers: one line of conspec's results for each instance
``specs.conspec``           the specs, in Con_spec; with ``bundle/`` they are instances too
``sample.json``             an input of the first network, and its output
``bundle/``                 the lens bundle, if it is small
``1.0/``, ``2.0/``          ``instances.csv``, ``onnx/``, ``vnnlib/``; the same instances
``smt/``, ``milp/``         the same as SMT-LIB 2, MPS, LP and exact rationals
==========================  ================================================================
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from conspec.benchmarks.suites.choice import Advance, Chosen, choose, stems
from conspec.benchmarks.suites.formats import Writer, write_json
from conspec.benchmarks.suites.readme import Facts, readme
from conspec.benchmarks.suites.request import Request
from conspec.benchmarks.suites.truth import ground_truth, truth_line
from conspec.encodings.boxed import Boxed, over_box
from conspec.encodings.query import Query, queries_of, space_of
from conspec.lens.bundle import Lens
from conspec.lens.files import Array, read_bytes, read_json
from conspec.lens.onnx_files import open_session
from conspec.specs import formula as f
from conspec.specs.errors import BadFile, BadUsage
from conspec.specs.printer import to_text

FORMAT, VERSION = "conspec-bench-suite", 1
SPECS = "specs.conspec"
LARGEST_BUNDLE = 16 * 2**20
"""Bytes of a bundle that is copied into the suite."""

_GENERATE = '''\
"""Rewrites the instances of this suite for another seed.

    python generate_properties.py SEED [--lens BUNDLE]

Needs conspec (version {version} made this folder). The seed {seed} gives the instances that it
came with. --lens names the lens bundle where this folder has no bundle/ of its own.
"""

import sys
from pathlib import Path

from conspec.benchmarks.suites.regenerate import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent, sys.argv[1:]))
'''


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: the suite.
        answers: for each instance its family and its line of ``truth.jsonl``.
        notes: sentences on what was asked for and is not there.
    """

    folder: Path
    answers: tuple[tuple[str, Mapping[str, Any]], ...]
    notes: tuple[str, ...]


def silent(what: str, done: int, total: int) -> None:
    """Shows no progress."""


def export_suite(
    lens: Lens, out: Path | str, request: Request, advance: Advance = silent
) -> Exported:
    """Make a suite, find its answers, and write it to the folder ``out``.

    The folder appears by one renaming, when all of it is written.

    Args:
        lens: the bundle that the specs are about.
        out: must not exist, or be an empty folder.
        request: what is asked for.
        advance: told how far the work is.

    Raises:
        BadUsage: ``out`` is in use, or the request gives no suite; see `request`.
        BadFile: the bundle cannot be read.
    """
    out = Path(out)
    refuse_used(out)
    with workshop(out) as work:
        folder = work / "new"
        made = write_suite(lens, folder, request, advance)
        if out.exists():
            out.rmdir()
        folder.rename(out)
    return Exported(out, made.answers, made.notes)


@contextmanager
def workshop(place: Path) -> Iterator[Path]:
    """A temporary folder beside a place, from which files can be renamed to it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work)


def refuse_used(out: Path) -> None:
    """Make sure that a suite may be written at ``out``.

    Raises:
        BadUsage: something is there.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise BadUsage(f"{out}: exists and is not an empty folder; choose another --out")


def write_suite(lens: Lens, folder: Path, request: Request, advance: Advance) -> Exported:
    """Write all files of a suite into a new folder.

    Raises:
        BadUsage, BadFile: see `export_suite`.
    """
    chosen = choose(lens, request, advance)
    boxes = [over_box(_query(entry.spec, lens)) for entry in chosen.entries]
    folder.mkdir()
    instances, notes = _write_instances(folder, chosen, (boxes, request), advance)
    answers = _write_truth(folder, chosen, lens, (request.seconds, advance))
    specs = f.Suite(tuple(entry.spec for entry in chosen.entries))
    (folder / SPECS).write_bytes(to_text(specs).encode())
    bundle = _copy_bundle(lens, folder / "bundle")
    _add_specs(instances, bundle)
    if "vnnlib" in request.formats:
        _write_lists(folder, instances)
    timed = [place for place, entry in enumerate(instances) if "onnx" in entry["files"]]
    sample = _sample(folder, instances[timed[0]], boxes[timed[0]]) if timed else None
    if sample is not None:
        write_json(folder / "sample.json", sample)
    about = _suite_document(lens, request, instances, bundle)
    write_json(folder / "suite.json", about)
    (folder / "LICENSE").write_bytes(licence())
    text = _GENERATE.format(version=metadata.version("conspec"), seed=request.seed)
    (folder / "generate_properties.py").write_bytes(text.encode())
    families = [entry.family for entry in chosen.entries]
    found = Exported(folder, tuple(zip(families, answers, strict=True)), (*chosen.notes, *notes))
    facts = Facts(lens, request, instances, found.answers, found.notes, sample, bundle)
    (folder / "README.md").write_bytes(readme(facts).encode())
    return found


def _query(spec: f.ForAll, lens: Lens) -> Query:
    """The one query of a spec over a region that is no union."""
    (query,) = queries_of(spec, lens, space_of(lens))
    return query


def _write_instances(
    folder: Path, chosen: Chosen, asked: tuple[list[Boxed], Request], advance: Advance
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every instance in all its formats: their entries in ``suite.json``, and notes."""
    boxes, request = asked
    writer = Writer(folder, request.formats)
    writer.prepare()
    names = stems([entry.spec.name for entry in chosen.entries])
    instances, notes = [], []
    for place, (entry, boxed) in enumerate(zip(chosen.entries, boxes, strict=True), start=1):
        files, left_out = writer.write(boxed, names[entry.spec.name])
        instances.append(
            {
                "name": entry.spec.name,
                "family": entry.family,
                "seconds": request.seconds,
                "files": files,
                "left_out": left_out,
                "about": dict(entry.about),
            }
        )
        if not files:
            reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
            notes.append(f"{entry.spec.name} has no file in any format but spec: {reasons}.")
        advance("writing", place, len(boxes))
    return instances, notes


def _add_specs(instances: list[dict[str, Any]], bundle: str | None) -> None:
    """Give each instance its spec, and the manifest of the bundle's folder if it was copied."""
    for entry in instances:
        entry["files"]["spec"] = SPECS
        if bundle is not None:
            entry["files"]["lens"] = f"{bundle}/manifest.json"
        else:
            size = f"{LARGEST_BUNDLE >> 20} MiB"
            entry["left_out"]["lens"] = f"the bundle was not copied, since it has more than {size}"


def _write_truth(
    folder: Path, chosen: Chosen, lens: Lens, how: tuple[float, Advance]
) -> list[dict[str, Any]]:
    """The answers, written as they come; ``how`` is the time limit and who is told."""
    seconds, advance = how
    specs = [entry.spec for entry in chosen.entries]
    lines = []
    with (folder / "truth.jsonl").open("wb") as stream:
        for place, truth in enumerate(ground_truth(specs, lens, seconds), start=1):
            line = truth_line(truth, lens)
            stream.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            lines.append(line)
            advance("finding the answers", place, len(specs))
    return lines


def _write_lists(folder: Path, instances: list[dict[str, Any]]) -> None:
    """``instances.csv`` of both versions, with the same instances in the same order."""
    for version, onnx, vnnlib in (("1.0", "onnx", "vnnlib1"), ("2.0", "onnx2", "vnnlib2")):
        rows = [
            ",".join(
                [
                    *(entry["files"][key].removeprefix(f"{version}/") for key in (onnx, vnnlib)),
                    f"{entry['seconds']:g}",
                ]
            )
            for entry in instances
            if onnx in entry["files"]
        ]
        text = "".join(f"{row}\n" for row in rows)
        (folder / version / "instances.csv").write_bytes(text.encode())


def _sample(folder: Path, entry: Mapping[str, Any], boxed: Boxed) -> dict[str, Any]:
    """The middle of an instance's box, and what its network makes of it in onnxruntime."""
    place = entry["files"]["onnx"]
    session = open_session((folder / place).read_bytes(), place)
    (source,), (result,) = session.get_inputs(), session.get_outputs()
    dtype = "float64" if source.type == "tensor(double)" else "float32"
    x: Array = boxed.region.center.floats().astype(dtype)[None]
    (y,) = session.run([result.name], {source.name: x.reshape(source.shape)})
    return {
        "network": place,
        "about": f"the middle of the box of {entry['name']}, through onnxruntime",
        "type": dtype,
        "input": {"name": source.name, "shape": list(source.shape), "values": x.ravel().tolist()},
        "output": {"name": result.name, "shape": list(y.shape), "values": y.ravel().tolist()},
    }


def _suite_document(
    lens: Lens, request: Request, instances: list[dict[str, Any]], bundle: str | None
) -> dict[str, Any]:
    """``suite.json``."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": f"{lens.name}_{lens.dim}",
        "conspec": metadata.version("conspec"),
        "bundle": {"name": lens.name, "hash": lens.hash, "folder": bundle},
        "request": asdict(request),
        "truth": "truth.jsonl",
        "instances": instances,
    }


def read_request(folder: Path) -> tuple[Request, str]:
    """What a suite was made of, from its ``suite.json``: the request and the bundle's hash.

    Raises:
        BadFile: it is no suite of ours.
    """
    path = folder / "suite.json"
    document = read_json(path)
    try:
        if (document["format"], document["version"]) != (FORMAT, VERSION):
            raise BadFile(f"{path}: another format or version than {FORMAT} {VERSION}")
        fields = dict(document["request"])
        for key in ("families", "formats"):
            fields[key] = tuple(fields[key])
        return Request(**fields), str(document["bundle"]["hash"])
    except (KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"{path}: no suite that 'conspec bench export' wrote: {error!r}") from error


def _copy_bundle(lens: Lens, place: Path) -> str | None:
    """Copy the bundle with its notice if it is small; the name of its folder, or None."""
    files = [lens.root / "manifest.json", *(lens.file(name) for name in lens.manifest.files)]
    if sum(path.stat().st_size for path in files) > LARGEST_BUNDLE:
        return None
    place.mkdir()
    for path in (*files, *_notices(lens)):
        (place / path.name).write_bytes(read_bytes(path))
    return place.name


def _notices(lens: Lens) -> list[Path]:
    """Files that say whose work a bundle derives from; the shipped one's lies beside it."""
    shipped = Path(__file__).parents[2] / "lens" / "emoji10"
    own = sorted(lens.root.glob("NOTICE*"))
    if own or lens.root.resolve() != (shipped / "bundle").resolve():
        return own
    return [shipped / "NOTICE.md"]


def licence() -> bytes:
    """The Apache licence, as it lies in the repository or in the installed package.

    Raises:
        BadFile: it is in neither.
    """
    beside = Path(__file__).parents[2] / "LICENSE"
    if beside.is_file():
        return beside.read_bytes()
    for path in metadata.files("conspec") or []:
        if path.name == "LICENSE":
            return path.read_binary()
    raise BadFile(f"{beside}: the licence of conspec is missing; install conspec anew")
