"""One instance in every format that can say it."""

import hashlib
import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from conspec.benchmarks.suites.request import POLYHEDRAL
from conspec.encodings.boxed import Boxed
from conspec.specs.errors import BadUsage

FOLDERS = {
    "vnnlib": ("1.0/onnx", "1.0/vnnlib", "2.0/onnx", "2.0/vnnlib"),
    "smt": ("smt",),
    "milp": ("milp",),
}
"""Where the files of a format go."""
LARGEST_FILE = 100 * 10**6
"""Bytes: GitHub, through which VNN-COMP collects benchmarks, takes no larger file."""
NOT_POLYHEDRAL = "has(…) and L2 balls are no linear constraints; smt and spec have them"


@dataclass
class Writer:
    """Writes instances into the folders of a suite.

    Attributes:
        root: the suite's folder.
        formats: which of `request.FORMATS` are wanted.
        networks: names of the ONNX files written, by hash: equal ones are written once.
    """

    root: Path
    formats: Collection[str]
    networks: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make the folders."""
        for name in (folder for wanted in self.formats for folder in FOLDERS[wanted]):
            (self.root / name).mkdir(parents=True)

    def write(self, boxed: Boxed, stem: str) -> tuple[dict[str, str], dict[str, str]]:
        """Write one instance.

        Returns:
            The files by format, relative to the root, and why other formats lack it.

        Raises:
            BadUsage: a file would be too large.
        """
        writers = {"vnnlib": self._vnnlib, "milp": self._milp, "smt": self._smt}
        is_polyhedral = boxed.ball is None and not boxed.source.cones
        files: dict[str, str] = {}
        left_out: dict[str, str] = {}
        for name in self.formats:
            if name in POLYHEDRAL and not is_polyhedral:
                left_out[name] = NOT_POLYHEDRAL
                continue
            try:
                files |= writers[name](boxed, stem)
            except BadUsage as error:
                left_out[name] = str(error)
        for place in files.values():
            _refuse_large(self.root / place)
        return files, left_out

    def _vnnlib(self, boxed: Boxed, stem: str) -> dict[str, str]:
        """VNN-LIB 1.0 and 2.0; both or neither, since the two folders hold the same instances."""
        from conspec.encodings.vnnlib_writer import vnnlib1, vnnlib2

        first, second = vnnlib1(boxed, stem), vnnlib2(boxed, stem)
        network = self._network(boxed, stem)
        files = {
            "onnx": f"1.0/onnx/{network}",
            "vnnlib1": f"1.0/vnnlib/{stem}.vnnlib",
            "onnx2": f"2.0/onnx/{network}",
            "vnnlib2": f"2.0/vnnlib/{stem}.vnnlib",
        }
        self._text(files["vnnlib1"], first)
        self._text(files["vnnlib2"], second)
        return files

    def _network(self, boxed: Boxed, stem: str) -> str:
        """The name of the network's file, which instances on embeddings share."""
        from conspec.encodings.onnx_writer import write_network

        fresh = self.root / "1.0" / "onnx" / f"{stem}.part"
        write_network(boxed, fresh)
        digest = hashlib.sha256(fresh.read_bytes()).hexdigest()
        if digest in self.networks:
            fresh.unlink()
            return self.networks[digest]
        name = "scores.onnx"
        if boxed.prelude is not None or name in self.networks.values():
            name = f"{stem}.onnx"
        place = fresh.rename(fresh.with_name(name))
        shutil.copyfile(place, self.root / "2.0" / "onnx" / name)
        self.networks[digest] = name
        return name

    def _milp(self, boxed: Boxed, stem: str) -> dict[str, str]:
        """MPS and LP with floats, and the exact rationals beside them."""
        from conspec.encodings.milp_file import exact_json, lp_text, milp_of, mps_text

        milp = milp_of(boxed)
        names = {"mps": "mps", "lp": "lp", "exact": "exact.json"}
        files = {key: f"milp/{stem}.{ending}" for key, ending in names.items()}
        self._text(files["mps"], mps_text(milp))
        self._text(files["lp"], lp_text(milp))
        self._text(files["exact"], exact_json(milp))
        return files

    def _smt(self, boxed: Boxed, stem: str) -> dict[str, str]:
        from conspec.encodings.smtlib import smtlib

        place = f"smt/{stem}.smt2"
        self._text(place, smtlib(boxed))
        return {"smt2": place}

    def _text(self, place: str, text: str) -> None:
        (self.root / place).write_bytes(text.encode())


def write_json(path: Path, value: object) -> None:
    """Write a JSON document, the same bytes for the same value."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_bytes(text.encode() + b"\n")


def _refuse_large(path: Path) -> None:
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise BadUsage(
            f"{path.name} has {size / 10**6:.0f} MB; VNN-COMP's repositories take files of up to "
            f"{LARGEST_FILE // 10**6} MB. Export specs over box regions (focus, box, L∞ balls), "
            "or a bundle of fewer dimensions"
        )
