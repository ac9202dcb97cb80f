"""A bundle with a repaired head: found, written, proved again, and measured on held-out images.

Regions such as ``focus(c, γ)`` are made of the training images that the head classifies
correctly, so they move when the head changes. A repair must therefore hold over the regions of
the bundle as it will be: the search is repeated with these added, until the specs are proved on
the bundle that is written.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from conspec.analysis.repair import Change, Failure, NoChange, Settings, find_change
from conspec.encodings.query import Query, queries_of, space_of
from conspec.lens.bundle import Lens
from conspec.lens.manifest import ALIGNMENT, CONCEPT_MAP, THUMBNAILS
from conspec.lens.onnx_files import affine_model, open_session, run
from conspec.lens.tables import read_thumbnails
from conspec.lens.thumbnails import unpack
from conspec.lens.write import Contents, refuse_existing, write_bundle
from conspec.specs.errors import BadRegion, BadUsage
from conspec.specs.formula import ForAll, Suite
from conspec.verifier.decide import Limits, verify_suite
from conspec.verifier.probability.intervals import clopper_pearson, error_of
from conspec.verifier.results import Result
from conspec.verifier.verdict import Proved, Trust, Violated

_ROUNDS = 6
"""How often the regions may move."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a changed head does to the accuracy on images that the repair did not look at.

    Attributes:
        images: held-out images of known class.
        before: how many were classified correctly.
        after: how many are.
        gained: wrong before, right now.
        lost: right before, wrong now.
        lower: end of a 95 % interval of the change in accuracy.
        upper: end of it.
    """

    images: int
    before: int
    after: int
    gained: int
    lost: int
    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class Repaired:
    """A repair that was found, written and proved.

    Attributes:
        change: of the head.
        lens: the bundle with the new head.
        results: the verdicts on it, all proved with certificates: repaired specs, then kept ones.
        effect: on held-out images; None without any.
        rounds: how often the search was made, since regions moved.
    """

    change: Change
    lens: Lens
    results: tuple[Result, ...]
    effect: Effect | None
    rounds: int


def check_wanted(
    lens: Lens, broken: Sequence[ForAll], kept: Sequence[ForAll], seconds: float
) -> None:
    """Make sure that there is something to repair, and that what is to be kept is there.

    Raises:
        BadUsage: a spec to be repaired is not violated, or one to be kept is not proved.
    """
    limits = Limits(seconds)
    for result in verify_suite(Suite(tuple(broken)), lens, limits=limits):
        if not isinstance(result.verdict, Violated):
            raise BadUsage(
                f"spec {result.spec.name}: is not violated, so there is nothing to repair; "
                "list it with --keep if it is to stay proved"
            )
    for result in verify_suite(Suite(tuple(kept)), lens, limits=limits):
        if not isinstance(result.verdict, Proved):
            raise BadUsage(
                f"--keep: spec {result.spec.name} is not proved now, so it can't be kept"
            )


def repair(
    lens: Lens, broken: Sequence[ForAll], kept: Sequence[ForAll], settings: Settings, out: Path
) -> Repaired | NoChange:
    """Change the head so that violated specs hold and listed ones stay proved.

    Nothing is written unless every spec is proved with a certificate on the new bundle.

    Args:
        lens: the bundle, with an affine head.
        broken: violated specs, to be repaired.
        kept: proved specs, to stay so.
        settings: what kind of change.
        out: folder for the new bundle; must not exist.

    Raises:
        BadUsage: see ``check_wanted`` and ``find_change``; or ``out`` exists.
    """
    refuse_existing(out, overwrite=False)
    check_wanted(lens, broken, kept, settings.seconds)
    specs, space = (*broken, *kept), space_of(lens)
    queries = [query for spec in specs for query in queries_of(spec, lens, space)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        for number in range(1, _ROUNDS + 1):
            change = find_change(queries, settings)
            if isinstance(change, NoChange):
                return change
            contents = contents_with_head(lens, change)
            trial = write_bundle(Path(work) / str(number), contents)
            limits = Limits(settings.seconds)
            try:
                results = tuple(verify_suite(Suite(specs), trial, limits=limits))
            except BadRegion as error:
                return NoChange(Failure.CLASS_LOST, detail=str(error))
            if all(_certified(result) for result in results):
                written = write_bundle(out, contents)
                return Repaired(change, written, results, effect_of(lens, written), number)
            moved = (query for spec in specs for query in queries_of(spec, trial, space))
            queries += [Query(q.spec, space, q.region, q.part, q.cuts) for q in moved]
    return NoChange(Failure.REGIONS_MOVE, detail=f"{_ROUNDS} rounds")


def _certified(result: Result) -> bool:
    return isinstance(result.verdict, Proved) and result.verdict.trust is Trust.CERTIFIED


def contents_with_head(lens: Lens, change: Change) -> Contents:
    """The contents of a bundle with a changed head; predictions are made anew."""
    head = affine_model(change.weight, change.bias, "logits")
    data, words = lens.embeddings, lens.vocabulary
    logits = run(open_session(head, "head"), data.z, len(lens.classes), "head")
    predicted = logits.argmax(axis=1).astype(np.int64)
    concepts: dict[str, Any] = words["concepts"]
    classes: dict[str, Any] = words.get("classes", {})
    entries = (classes | concepts).items()
    thumbnails = None
    if lens.has_thumbnails:
        sizes = {"N+1": lens.count + 1}
        thumbnails = unpack(*read_thumbnails(lens.file(THUMBNAILS), sizes))
    about = {key: getattr(lens.manifest, key) for key in ("model", "vlm", "images")}
    about["model"] += ", head repaired"
    return Contents(
        name=f"{lens.name} repaired",
        classes=lens.classes,
        concepts=lens.concepts,
        head=head,
        concept_map=lens.file(CONCEPT_MAP).read_bytes(),
        alignment=lens.file(ALIGNMENT).read_bytes(),
        embeddings=replace(data, predicted=predicted),
        image_ids=lens.image_ids,
        thresholds={name: entry["threshold"] for name, entry in concepts.items()},
        captions={name: entry.get("captions", ()) for name, entry in entries},
        calibration={name: entry.get("calibrated") for name, entry in concepts.items()},
        thumbnails=thumbnails,
        about=about,
        quality=_quality(lens, predicted),
        seed=lens.manifest.seed,
    )


def _quality(lens: Lens, predicted: Any) -> dict[str, Any]:
    """The quality of the alignment, with the accuracy of the new head."""
    data, found = lens.embeddings, dict(lens.quality)
    if "model_accuracy" in found:
        # Over the images that lens.alignment.report takes.
        test = data.heldout if data.heldout.any() else ~data.heldout
        test = test & (data.label >= 0)
        found["model_accuracy"] = float((predicted[test] == data.label[test]).mean())
    return found


def effect_of(before: Lens, after: Lens, confidence: float = 0.95) -> Effect | None:
    """The change in accuracy on held-out images of known class; None if there are none.

    The interval is ``gained − lost`` with Clopper and Pearson's interval of each share, at half
    the allowed error each, so it covers at least as often as it says (Bonferroni).
    """
    data = before.embeddings
    chosen = data.heldout & (data.label >= 0)
    total = int(chosen.sum())
    if not total:
        return None
    was, now = (lens.embeddings.predicted[chosen] == data.label[chosen] for lens in (before, after))
    gained, lost = int((~was & now).sum()), int((was & ~now).sum())
    each = 1 - error_of(confidence) / 2
    up, down = clopper_pearson(gained, total, each), clopper_pearson(lost, total, each)
    ends = (up[0] - down[1], up[1] - down[0])
    return Effect(total, int(was.sum()), int(now.sum()), gained, lost, *ends)


def others_kept(
    suite: Suite, before: Lens, after: Lens, seconds: float
) -> tuple[int, tuple[str, ...]]:
    """How many of a suite's specs were proved before, and the names of those that no longer are."""
    limits = Limits(seconds)
    proved = [r.spec for r in verify_suite(suite, before, limits=limits)
              if isinstance(r.verdict, Proved)]  # fmt: skip
    again = verify_suite(Suite(tuple(proved)), after, limits=limits)
    lost = tuple(r.spec.name for r in again if not isinstance(r.verdict, Proved))
    return len(proved), lost


def margin_of(text: str) -> Fraction:
    """A margin as it is written, such as 0.001.

    Raises:
        BadUsage: it is no number.
    """
    from conspec.specs.exact import read_number

    try:
        return read_number(text)
    except (ValueError, ZeroDivisionError) as error:
        raise BadUsage(f"--margin {text}: must be a number such as 0.001") from error
