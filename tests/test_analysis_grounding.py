"""Regions, fills, heatmaps and the grounding schedule, on models that look where we know."""

import sys
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from conspec.analysis import grounding
from conspec.analysis.attributions import Encoder, grad_cam, masked, open_encoder, score_cam
from conspec.analysis.edits import (
    CUTOFFS,
    Box,
    Fill,
    Region,
    control,
    inpainted,
    mask_of,
    painter,
    proposals,
    seed_of,
)
from conspec.analysis.grounding import (
    Attempt,
    Grounding,
    Scene,
    Series,
    Stage,
    explaining,
    ground,
    shrunk,
)
from conspec.analysis.grounding_summary import summarize
from conspec.analysis.pathways import LastLayer
from conspec.analysis.predicates import Predicate
from conspec.analysis.rules import PAPER, learn
from conspec.lens.encoders import split
from conspec.lens.preprocess import Preprocess
from conspec.specs.errors import BadFile, BadUsage, MissingSolver

SIDE = 64
PATCH = Box(20, 36, 28, 44)
ON = Predicate(label=0, feature=0, sign=1, threshold=0.5, support=1)


class Planted(nn.Module):
    """z_0 is the mean red of a patch, z_1 the mean blue of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 1, bias=False)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.maps.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[:, :, None, None])
            self.head.weight.copy_(torch.eye(2))
            self.head.bias.zero_()

    def forward(self, images: Any) -> Any:
        maps = self.maps(images)
        patch = maps[:, 0, PATCH.top : PATCH.bottom, PATCH.left : PATCH.right]
        return self.head(torch.stack([patch.mean((1, 2)), maps[:, 1].mean((1, 2))], 1))


@pytest.fixture(scope="module")
def planted() -> Encoder:
    return open_encoder(split(Planted(), Preprocess(SIDE, SIDE), "planted"))


def picture(patch: int = 255, around: int = 15) -> Any:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[:, :, 0] = around
    image[:, :, 2] = 60
    image[PATCH.top : PATCH.bottom, PATCH.left : PATCH.right, 0] = patch
    return image


# --- regions -------------------------------------------------------------------------------------


def literal_boxes(heat: Any, cutoff: float) -> set[Box]:
    """Flood fill over all eight neighbours, as the definition says it."""
    hot = {(int(r), int(c)) for r, c in np.argwhere(heat >= cutoff * heat.max())}
    boxes = set()
    while hot:
        part, queue = set(), [hot.pop()]
        while queue:
            row, column = queue.pop()
            part.add((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & hot
            hot -= near
            queue += near
        rows, columns = {r for r, _ in part}, {c for _, c in part}
        boxes.add(Box(min(rows), min(columns), max(rows) + 1, max(columns) + 1))
    return boxes


@settings(deadline=None)
@given(arrays.arrays(np.float64, (7, 7), elements=st.sampled_from([0.0, 0.1, 0.3, 0.55, 1.0])))
def test_boxes_are_those_of_a_literal_transcription(heat: Any) -> None:
    found = proposals(heat)
    assert len(found) == len(CUTOFFS) == 11
    assert CUTOFFS[0] == 0.6
    assert CUTOFFS[-1] == 0.1
    for cutoff, region in zip(CUTOFFS, found, strict=True):
        assert len(set(region)) == len(region)
        assert set(region) == (literal_boxes(heat, cutoff) if heat.max() > 0 else set())


@settings(deadline=None)
@given(st.data())
def test_a_control_has_the_area_and_the_proportions(data: st.DataObject) -> None:
    side = data.draw(st.integers(4, 40))
    corners = st.tuples(*[st.integers(0, side - 1)] * 4)
    boxes = tuple(
        Box(min(a, b), min(c, d), max(a, b) + 1, max(c, d) + 1)
        for a, b, c, d in data.draw(st.lists(corners, min_size=1, max_size=3))
    )
    (found,) = control(boxes, side, np.random.default_rng(data.draw(st.integers(0, 99))))
    assert 0 <= found.top < found.bottom <= side
    assert 0 <= found.left < found.right <= side
    area = int(mask_of(boxes, side).sum())
    tall = max(b.bottom for b in boxes) - min(b.top for b in boxes)
    wide = max(b.right for b in boxes) - min(b.left for b in boxes)

    def cost(height: int, width: int) -> float:
        form = abs(np.log(width / height) - np.log(wide / tall))
        return float(8 * abs(np.log(height * width / area)) + form)

    best = min(cost(h, w) for h in range(1, side + 1) for w in range(1, side + 1))
    assert cost(found.height, found.width) == pytest.approx(best, abs=1e-9)
    if len(boxes) == 1:
        assert (found.height, found.width) == (boxes[0].height, boxes[0].width)


def test_places_of_controls_are_uniform() -> None:
    random = np.random.default_rng(0)
    drawn = [control((Box(0, 0, 2, 3),), 5, random)[0] for _ in range(3000)]
    counts = np.zeros((4, 3))
    for box in drawn:
        counts[box.top, box.left] += 1
    assert counts.min() > 180  # 250 expected, four standard deviations below
    assert counts.max() < 320
    assert control((), 5, random) == ()


def test_seeds_are_those_of_the_paper() -> None:
    digest = sha256(b"42|model|image|class|7").digest()
    assert seed_of("model", "image", "class", 7) == int.from_bytes(digest[:8], "big")


# --- fills ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", list(Fill))
@given(st.integers(0, 10), st.integers(0, 10), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_no_fill_touches_a_pixel_outside(
    fill: Fill, top: int, left: int, height: int, width: int
) -> None:
    image = np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    mask = mask_of([Box(top, left, top + height, left + width)], 16)
    before = image.copy()
    found = painter(image, fill)(mask)
    assert (image == before).all()
    assert (found[~mask] == image[~mask]).all()
    assert (found[mask] != image[mask]).any()
    assert (painter(image, fill)(mask) == found).all()


def test_inpainting_is_harmonic() -> None:
    image = np.random.default_rng(4).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    mask = mask_of([Box(3, 2, 9, 12)], 12)
    found = inpainted(image, mask).astype(float)
    for row, column in np.argwhere(mask):
        beside = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        mean = np.mean([found[r, c] for r, c in beside if r < 12 and c < 12], axis=0)
        assert np.abs(found[row, column] - mean).max() <= 1.01  # both sides are rounded
    steady = np.full((8, 8, 3), 77, np.uint8)
    assert (inpainted(steady, mask_of([Box(2, 2, 6, 6)], 8)) == 77).all()
    everything = inpainted(image, np.ones((12, 12), np.bool_))
    assert (everything == np.rint(image.mean(axis=(0, 1)))).all()
    assert (inpainted(image, np.zeros((12, 12), np.bool_)) == image).all()


def test_fills_are_what_they_say() -> None:
    image = picture()
    mask = mask_of([PATCH], SIDE)
    assert (painter(image, Fill.MEAN)(mask)[mask] == np.rint(image.mean(axis=(0, 1)))).all()
    blurred = painter(image, Fill.BLUR)(mask)[PATCH.top : PATCH.bottom, PATCH.left : PATCH.right, 0]
    # A Gaussian of 20/224 of the side leaves the middle of the patch (erf(4/(σ√2)))² of its height.
    from scipy.special import erf

    left = erf(4 / (SIDE * 20 / 224 * 2**0.5)) ** 2
    assert blurred[3:5, 3:5].mean() == pytest.approx(15 + 240 * left, abs=6)
    noisy = painter(image, Fill.NOISE, seed=1)(mask)
    assert (noisy != painter(image, Fill.NOISE, seed=2)(mask)).any()


# --- heatmaps ------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 3)
        self.last = nn.Linear(3, 2)

    def forward(self, images: Any) -> Any:
        maps = self.relu(self.conv(images))
        return self.last(self.fc(self.pool(maps).flatten(1) + 0.1 * maps.amax((2, 3))))


@pytest.fixture(scope="module")
def small() -> Encoder:
    torch.manual_seed(5)
    return open_encoder(split(Small(), Preprocess(15, 15, (0.4, 0.5, 0.6)), "small"))


def random_image(side: int) -> Any:
    return np.random.default_rng(6).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_the_last_layer_with_maps_is_found(small: Encoder) -> None:
    assert small.layer_name == "relu"  # not the pooling, whose maps have one pixel
    with pytest.raises(BadUsage, match="no such module"):
        open_encoder(small.classifier, "nothing")
    with pytest.raises(BadUsage, match=r"--layer pool: gives \[1, 4, 1, 1\].*relu would do"):
        open_encoder(small.classifier, "pool")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Linear(3, 2))
    with pytest.raises(BadFile, match="two dimensions"):
        open_encoder(split(flat, Preprocess(2, 2), "flat"))
    ends = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU())
    with pytest.raises(BadFile, match="does not end in a linear layer"):
        open_encoder(split(ends, Preprocess(2, 2), "relu"))


@pytest.mark.parametrize("sign", [1, -1])
def test_grad_cam_is_its_formula(small: Encoder, sign: int) -> None:
    image = random_image(15)
    module: Any = small.classifier.module
    maps = module.relu(module.conv(small.inputs(image[None]))).detach().requires_grad_()
    z = module.fc(module.pool(maps).flatten(1) + 0.1 * maps.amax((2, 3)))
    for feature in range(3):
        (gradient,) = torch.autograd.grad(sign * z[0, feature], maps, retain_graph=True)
        heat = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()
        grown = nn.functional.interpolate(heat, (15, 15), mode="bilinear", align_corners=True)
        assert np.allclose(grad_cam(small, image, feature, sign), grown[0, 0], atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_score_cam_is_its_formula(small: Encoder, sign: int) -> None:
    image = random_image(15)
    module: Any = small.classifier.module
    inputs = small.inputs(image[None])
    with torch.no_grad():
        maps = module.relu(module.conv(inputs))
        grown = nn.functional.interpolate(maps, (15, 15), mode="bilinear", align_corners=True)[0]
        values = []
        for channel in grown:
            reach = channel.max() - channel.min()
            mask = (channel - channel.min()) / reach if reach > 0 else torch.zeros_like(channel)
            values.append(sign * small.features(inputs * mask)[0, 1])
        weights = torch.softmax(torch.tensor(values), 0)
        heat = sum(w * channel for w, channel in zip(weights, grown, strict=True)).relu()
        heat = (heat - heat.min()) / (heat.max() - heat.min())
    assert np.allclose(score_cam(masked(small, image), 1, sign), heat, atol=1e-5)


def test_a_transformer_is_looked_at_through_its_tokens() -> None:
    import timm

    torch.manual_seed(7)
    vit = timm.create_model("test_vit", pretrained=False, img_size=32, patch_size=8, num_classes=3)
    encoder = open_encoder(split(vit, Preprocess(32, 32), "vit"))
    assert encoder.layer_name == "blocks.5.norm1"
    image = random_image(32)
    before = encoder.features(encoder.inputs(image[None]))
    found = masked(encoder, image)
    assert found.maps.shape == (64, 32, 32)
    # Without looking through the tokens as a square: the formula on the norm's own output.
    seen: list[Any] = []
    hook = vit.blocks[5].norm1.register_forward_hook(lambda _m, _i, out: seen.append(out))
    z = encoder.differentiable(encoder.inputs(image[None]))
    hook.remove()
    (gradient,) = torch.autograd.grad(z[0, 7], seen[0])
    heat = (gradient[0, 1:].mean(0) * seen[0][0, 1:].detach()).sum(1).relu().reshape(1, 1, 4, 4)
    grown = nn.functional.interpolate(heat, (32, 32), mode="bilinear", align_corners=True)
    assert np.allclose(grad_cam(encoder, image, 7, 1), grown[0, 0], atol=1e-6)
    tokens = seen[0][0, 1:].detach().T.reshape(64, 4, 4)
    assert np.allclose(found.maps[:, 0, 0], tokens[:, 0, 0], atol=1e-6)
    assert np.allclose(found.maps[:, 31, 0], tokens[:, 3, 0], atol=1e-6)
    assert (encoder.features(encoder.inputs(image[None])) == before).all()


def test_without_captum_it_says_how_to_get_it(
    small: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingSolver, match=r"pip install 'conspec\[ground\]'"):
        grad_cam(small, random_image(15), 0, 1)


# --- the schedule --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grounded(planted: Encoder) -> dict[Fill, list[Grounding]]:
    image = picture()
    return {
        fill: [ground(Scene(planted, image, f"{n}.png"), ON, "red", fill) for n in range(12)]
        for fill in Fill
    }


@pytest.mark.parametrize("fill", list(Fill))
def test_a_planted_patch_is_found_and_not_by_chance(
    fill: Fill, grounded: dict[Fill, list[Grounding]]
) -> None:
    found = grounded[fill]
    for each in found:
        accepted = each.guided.accepted
        assert accepted is not None
        assert (accepted.stage, accepted.cutoff, accepted.region) == (Stage.GRAD_CAM, 0.6, (PATCH,))
        assert each.margin == pytest.approx(0.5)
        assert each.agreed
        assert all(margin < 0 for margin in each.fills.values())
        assert each.deep(each.guided)
        assert each.kept is not None
        assert each.kept_random is not None
        assert each.kept >= 0
        assert each.least is not None
        assert each.least.off
        assert not (mask_of(each.least.region, SIDE) & ~mask_of([PATCH], SIDE)).any()
    summary = summarize(found)
    assert summary.tests.guided.count == 12
    assert summary.tests.random.count <= 5
    assert summary.tests.p_value < 0.02
    assert summary.kept.guided.count == 12
    assert summary.kept.random.count <= 2
    assert summary.agreed.count == 12


def test_controls_stand_beside_proposals(grounded: dict[Fill, list[Grounding]]) -> None:
    for each in grounded[Fill.BLUR]:
        for ours, theirs in zip(each.guided.attempts, each.random.attempts, strict=True):
            assert (ours.stage, ours.cutoff) == (theirs.stage, theirs.cutoff)
            assert len(theirs.region) == bool(ours.region)
            assert theirs.area == pytest.approx(ours.area, rel=0.05)
        random = np.random.default_rng(seed_of("planted", each.image, "red", 0))
        assert each.random.attempts[0].region == control((PATCH,), SIDE, random)
    places = {each.random.attempts[0].region for each in grounded[Fill.BLUR]}
    assert len(places) > 6  # the name of the picture seeds them
    again = {each.random.attempts[0].region for each in grounded[Fill.MEAN]}
    assert places == again  # and the fill does not


def test_grounding_is_deterministic(
    planted: Encoder, grounded: dict[Fill, list[Grounding]]
) -> None:
    again = ground(Scene(planted, picture(), "3.png"), ON, "red", Fill.NOISE)
    assert again == grounded[Fill.NOISE][3]


def test_deactivation_is_strict(planted: Encoder) -> None:
    scene, mask = Scene(planted, picture(), "a"), mask_of([PATCH], SIDE)
    level = scene.margins(replace(ON, threshold=0.0), [mask], Fill.MEAN)[0]
    (same,) = scene.margins(replace(ON, threshold=level), [mask], Fill.MEAN)
    assert same == 0.0
    tie = ground(scene, replace(ON, threshold=level), "red", Fill.MEAN)
    patch_only = [a for a in tie.guided.attempts if a.region == (PATCH,)]
    assert patch_only
    assert not any(attempt.off for attempt in patch_only)
    beyond = ground(scene, replace(ON, threshold=float(np.nextafter(level, 2))), "red", Fill.MEAN)
    assert beyond.guided.accepted == replace(patch_only[0], margin=level - np.nextafter(level, 2))
    assert not Attempt(Stage.GRAD_CAM, 0.6, (), 0.0, -1.0).off
    with pytest.raises(BadUsage, match="not active"):
        ground(scene, replace(ON, threshold=1.5), "red")


def test_score_cam_gets_its_turn_when_grad_cam_fails(
    planted: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def seed(*words: object) -> int:
        asked.append(words)
        return seed_of(*words)

    monkeypatch.setattr(grounding, "seed_of", seed)
    # A dark patch in red: sign · gradient is negative and the map is not, so Grad-CAM is empty.
    dark = Predicate(label=1, feature=0, sign=-1, threshold=0.3, support=1)
    found = ground(Scene(planted, picture(0, 250), "dark"), dark, "dark")
    first, second = found.guided.attempts[:11], found.guided.attempts[11:]
    assert {attempt.region for attempt in first} == {()}
    assert {attempt.stage for attempt in second} == {Stage.SCORE_CAM}
    # The number of a negative feature is that of the feature and the two features' count.
    assert ("planted", "dark", "dark", 0 + 2) in asked
    assert found.guided.accepted is not None
    assert found.guided.accepted.stage is Stage.SCORE_CAM
    assert found.guided.accepted.margin == pytest.approx(found.fills[Fill.BLUR])
    assert not found.deep(found.guided)  # only Grad-CAM's regions count there
    summary = summarize([found])
    assert (summary.fallback.count, summary.fallback.total) == (1, 1)


def test_shrinking_ends_at_what_is_needed(planted: Encoder) -> None:
    scene = Scene(planted, picture(), "a")
    # One column less leaves 1/8 of the patch, which is far above this threshold.
    level = scene.margins(replace(ON, threshold=0.0), [mask_of([PATCH], SIDE)], Fill.MEAN)[0]
    needed = replace(ON, threshold=level + 0.02)

    def works(regions: Any) -> list[bool]:
        masks = [mask_of(region, SIDE) for region in regions]
        return [margin < 0 for margin in scene.margins(needed, masks, Fill.MEAN)]

    whole, useless = Box(0, 0, SIDE, SIDE), Box(1, 1, 5, 9)
    assert shrunk((whole,), SIDE, works) == (PATCH,)
    assert shrunk((useless, replace(PATCH, top=3)), SIDE, works) == (PATCH,)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_nothing_can_be_cut_off_a_shrunk_region(data: st.DataObject) -> None:
    side = 10
    corners = st.tuples(*[st.integers(0, side - 1)] * 4)
    drawn = data.draw(st.lists(corners, min_size=1, max_size=3))
    start = tuple(Box(min(a, b), min(c, d), max(a, b) + 1, max(c, d) + 1) for a, b, c, d in drawn)
    inside = [(int(r), int(c)) for r, c in np.argwhere(mask_of(start, side))]
    pixels = data.draw(st.sets(st.sampled_from(inside), min_size=1, max_size=4))

    def covers(region: Region) -> bool:
        mask = mask_of(region, side)
        return all(mask[pixel] for pixel in pixels)

    found = shrunk(start, side, lambda regions: [covers(region) for region in regions])
    assert covers(found)
    assert not (mask_of(found, side) & ~mask_of(start, side)).any()
    for place, box in enumerate(found):
        others = found[:place] + found[place + 1 :]
        assert not others or not covers(others)
        for name, step in (("top", 1), ("left", 1), ("bottom", -1), ("right", -1)):
            less = replace(box, **{name: getattr(box, name) + step})
            if less.height and less.width:
                assert not covers((*others, less))


def test_an_edit_that_leaks_is_refused(planted: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(planted, picture(), "leaky")
    monkeypatch.setattr(scene, "painted", lambda _mask, _fill: picture(255, 16))
    with pytest.raises(BadUsage, match="outside its region"):
        scene.margins(ON, [mask_of([PATCH], SIDE)], Fill.BLUR)


def test_a_picture_of_another_size_is_refused(planted: Encoder) -> None:
    with pytest.raises(BadUsage, match=r"uint8 \[64, 64, 3\]"):
        Scene(planted, random_image(32), "small")


def test_what_the_model_sees_is_what_is_edited(small: Encoder) -> None:
    from PIL import Image

    large = Image.fromarray(np.random.default_rng(8).integers(0, 256, (60, 40, 3), dtype=np.uint8))
    whole = small.classifier.preprocess([large])
    assert torch.equal(small.inputs(small.prepared(large)[None]), whole)
    assert np.allclose(small.embed([large]), small.features(whole))


def test_explaining_predicates_come_in_the_order_of_the_pathway() -> None:
    layer = LastLayer(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([-2.5, 0.0]))
    z = np.array([[1.0, 1.0], [2.0, 1.0], [0.0, 0.5]], np.float32)
    predicted = layer.predicted(z)
    rules = learn(("a", "b"), layer, (z, predicted, predicted), PAPER)
    found = explaining(rules, layer, z)
    assert [[p.feature for p in each] for each in found[:2]] == [[1, 0], [1, 0]]


# --- the summary ---------------------------------------------------------------------------------


def made(image: str, guided: float, random: float, value: float = 1.0) -> Grounding:
    """A grounding whose eleven attempts of each side end with the given margins."""

    def series(margin: float) -> Series:
        region = (Box(0, 0, 1, 1),)
        tried = [Attempt(Stage.GRAD_CAM, c, region, 0.25, margin) for c in CUTOFFS]
        return Series(tuple(tried))

    fills = dict.fromkeys(Fill, -1.0) if guided < 0 else {}
    kept = (0.0, -0.1) if guided < 0 else (None, None)
    return Grounding(
        image, "c", ON, Fill.BLUR, value, 0.1, series(guided), series(random), fills, None, *kept
    )


def test_a_summary_counts() -> None:
    found = [
        made("a", -0.1, 0.2),
        made("a", 0.2, -0.3),
        made("b", -0.9, -0.1),
        made("c", 0.0, 0.0),
    ]
    summary = summarize(found)
    assert (summary.pictures, summary.grounded.count, summary.grounded.total) == (3, 2, 3)
    tests = summary.tests
    assert (tests.guided.count, tests.random.count, tests.guided.total) == (2, 2, 4)
    assert (tests.guided_only, tests.random_only, tests.p_value) == (1, 1, 1.0)
    assert (summary.first.guided.count, summary.first.random.count) == (2, 1)
    # Half of |z_j| = 0.5: a margin from 0.1 to −0.1 is no deep removal, one to −0.9 is.
    assert (summary.deep.guided.count, summary.deep.random.count) == (1, 0)
    assert summary.cutoffs[0.3].guided.count == 2
    assert (summary.kept.guided.count, summary.kept.random.count, summary.kept.p_value) == (
        2,
        0,
        0.5,
    )
    assert (summary.fallback.count, summary.fallback.total) == (0, 2)
    assert summary.agreed.count == 2
    doubtful = replace(found[0], fills={**found[0].fills, Fill.NOISE: 0.0})
    assert not doubtful.agreed
    assert summarize([doubtful]).fills[Fill.NOISE].count == 0
    assert summary.area == 0.25
    assert summary.area_least is None
    assert summary.tests.guided.lower < 0.5 < summary.tests.guided.upper


def test_nothing_to_sum_up_is_no_error() -> None:
    summary = summarize([])
    assert summary.tests.guided.total == 0
    assert summary.area is None
