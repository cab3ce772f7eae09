"""Views: policies and deteriorations do what they say, and are pure functions of (image, sample_id, epoch)."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage, stats
from timm.data import create_transform

from pipeline_lib.config.deteriorations import KINDS, Deteriorations, draws
from pipeline_lib.config.policies import Policy
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.deteriorations import blur, cover
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.views import draw_seed, make_view
from tests.unit import worlds

pytestmark = pytest.mark.usefixtures("one_thread")
POLICIES = ("augmix", "cutmix", "mixup", "blur", "small_crops", "box_overlay")
CONFIG = {"input_size": (3, 32, 32), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center"}
PLAIN = worlds.block_spec()["view"]


class Colours:
    """A split whose i-th image has the grey value 5 * i throughout, and the label i."""

    name, split = "colours", "train"

    def __init__(self, count: int = 40, unreadable: tuple[int, ...] = ()) -> None:
        self.sample_id, self.label = np.arange(100, 100 + count), np.arange(count)
        self._unreadable = unreadable

    def __len__(self) -> int:
        return len(self.label)

    def image(self, position: int) -> Image.Image:
        if position in self._unreadable:
            raise UnreadableImageError(f"{position}: can't be decoded")
        return Image.new("RGB", (20, 30), (5 * position,) * 3)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return ImageDataset(worlds.glyphs(tmp_path_factory.mktemp("world")), "train")


def dumped(section: Deteriorations) -> list[dict[str, Any]]:
    """Return the draws as they stand in a spec."""
    return [draw.model_dump() for draw in draws(section)]


def with_policy(kind: str, **options: Any) -> dict[str, Any]:
    """Return the spec of an augmented view with a policy, as the config would give it."""
    section = TypeAdapter(Policy).validate_python({"kind": kind, **options})
    return {**PLAIN, "policy": section.model_dump(mode="json")}


def timm_draw(image: Image.Image, sample_id: int, epoch: int, **changes: Any) -> bytes:
    """Draw timm's own training transform."""
    settings = {
        "scale": (0.3, 1.0),
        "ratio": (0.75, 1.33),
        "hflip": 0.5,
        "color_jitter": 0.4,
        "interpolation": "random",
    }
    transform = create_transform((3, 32, 32), is_training=True, use_prefetcher=True, **settings | changes)
    seed = draw_seed(0, epoch, sample_id)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return transform(image).numpy().tobytes()


@pytest.mark.parametrize("spec", [PLAIN, {**PLAIN, "policy": None}, with_policy("augmix", probability=0)], ids=str)
def test_without_a_policy_the_augmentation_is_timms(images: ImageDataset, spec: dict[str, Any]) -> None:
    view = make_view(spec, CONFIG, images)
    for sample_id in range(5):
        for epoch in range(3):
            pixels, extras = view(images.image(sample_id), sample_id, epoch)
            assert pixels.numpy().tobytes() == timm_draw(images.image(sample_id), sample_id, epoch)
            assert (pixels.shape, pixels.dtype, extras) == ((3, 32, 32), torch.uint8, ())


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (with_policy("augmix", probability=1), {"auto_augment": "augmix-m3-w3"}),
        (with_policy("augmix", probability=1, severity=7, width=2, depth=2), {"auto_augment": "augmix-m7-w2-d2"}),
        (with_policy("small_crops", probability=1, scale=(0.1, 0.2)), {"scale": (0.1, 0.2)}),
    ],
    ids=str,
)
def test_augmix_and_small_crops_are_timms(images: ImageDataset, spec: dict[str, Any], changes: dict[str, Any]) -> None:
    view = make_view(spec, CONFIG)
    for sample_id in range(10):
        pixels, _ = view(images.image(sample_id), sample_id, 2)
        assert pixels.numpy().tobytes() == timm_draw(images.image(sample_id), sample_id, 2, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", POLICIES)
def test_a_policy_changes_its_share_of_the_draws_and_no_others(images: ImageDataset, kind: str) -> None:
    plain = make_view(PLAIN, CONFIG)
    view = make_view(with_policy(kind, probability=0.3), CONFIG, images)
    image = images.image(30)
    is_changed, drawn, first_of_timm = [], {}, []
    for epoch in range(200):
        drawn[epoch] = view(image, int(images.sample_id[30]), epoch)
        is_changed.append(not drawn[epoch][0].equal(plain(image, int(images.sample_id[30]), epoch)[0]))
        first_of_timm.append(random.Random(draw_seed(0, epoch, int(images.sample_id[30]))).random())
    # 0.3 of 200 draws is 60 with a standard deviation of 6.5; a weak mix may round to the plain pixels.
    assert (35 if kind == "mixup" else 40) <= sum(is_changed) <= 80
    # The choice must not go with the size of timm's crop, which is the first number that it draws.
    first = np.array(first_of_timm)
    assert abs(first[is_changed].mean() - first[np.logical_not(is_changed)].mean()) < 0.15
    for epoch in (17, 3, 150):  # out of order, and through a pickle, as in a worker process
        again = pickle.loads(pickle.dumps(view))(image, int(images.sample_id[30]), epoch)
        assert again[0].equal(drawn[epoch][0])
        assert again[1] == drawn[epoch][1]


def test_box_overlay_covers_the_drawn_share_with_grey() -> None:
    spec = {**with_policy("box_overlay", probability=1, area=(0.2, 0.4)), "color_jitter": 0}
    view = make_view(spec, CONFIG)
    white = Image.new("RGB", (50, 50), "white")
    shares = []
    for epoch in range(200):
        pixels, _ = view(white, 7, epoch)
        grey = (pixels == 128).all(dim=0)
        assert (pixels[:, ~grey] == 255).all()
        shares.append(grey.float().mean().item())
    assert min(shares) == pytest.approx(0.2, abs=0.03)
    assert max(shares) == pytest.approx(0.4, abs=0.03)


def test_the_blur_policy_draws_its_radius_from_the_range() -> None:
    whole = {"scale": (1, 1), "ratio": (1, 1), "horizontal_flip": 0, "color_jitter": 0}
    view = make_view({**with_policy("blur", probability=1, radius=(0.03, 0.1)), **whole}, CONFIG)
    step = np.zeros((32, 32, 3), np.uint8)
    step[:, 16:] = 255
    radii = []
    for epoch in range(100):
        pixels, _ = view(Image.fromarray(step), 3, epoch)
        slope = np.diff(pixels[0, 16].numpy().astype(float))  # the blur's kernel: its variance is radius^2
        position = np.arange(31)
        centre = (slope * position).sum() / slope.sum()
        radii.append(((slope * (position - centre) ** 2).sum() / slope.sum()) ** 0.5 / 32)
    assert min(radii) == pytest.approx(0.03, abs=0.006)
    assert max(radii) == pytest.approx(0.1, abs=0.01)


def test_blur_is_gaussian_with_the_share_of_the_shorter_side() -> None:
    step = np.zeros((300, 100), np.uint8)
    step[:, 50:] = 255
    for share in (0.01, 0.03, 0.08):
        found = np.asarray(blur(Image.fromarray(step).convert("RGB"), share))[150, :, 0].astype(float)
        expected = ndimage.gaussian_filter1d(step[150].astype(float), share * 100, mode="nearest")
        assert np.abs(found - expected).max() < 6, share


@given(
    width=st.integers(3, 90),
    height=st.integers(3, 90),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    seed=st.integers(0, 2**32),
)
def test_a_box_covers_its_share_and_a_larger_one_contains_it(
    width: int, height: int, shares: list[float], seed: int
) -> None:
    image = Image.new("RGB", (width, height), "white")
    small, large = (
        (np.asarray(cover(image, share, np.random.default_rng(seed))) == 128).all(axis=2) for share in shares
    )
    assert not (small & ~large).any()
    for covered, share in ((small, shares[0]), (large, shares[1])):
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        assert covered.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert abs(len(rows) - height * share**0.5) <= 1
        assert abs(len(columns) - width * share**0.5) <= 1


def test_boxes_are_equally_likely_everywhere() -> None:
    image = Image.new("RGB", (32, 32), "white")
    settings = Deteriorations(box=(0.1, 0.2, 0.3, 0.4, 0.5))
    view = make_view({"kind": "deteriorations", "seed": 0, "draws": dumped(settings)}, CONFIG)
    covered = [(view(image, sample_id, 5)[0][0] == 128).numpy() for sample_id in range(500)]
    for axis in (0, 1):
        first = [int(np.argmax(one.any(axis=axis))) for one in covered]
        assert stats.chisquare(np.bincount(first, minlength=32 - 10 + 1)).pvalue > 1e-3


@pytest.mark.parametrize("side", [40, 224])
def test_each_severity_changes_images_more_than_the_one_before(images: ImageDataset, side: int) -> None:
    config = {**CONFIG, "input_size": (3, side, side)}
    settings = Deteriorations()
    view = make_view({"kind": "deteriorations", "seed": 0, "draws": dumped(settings)}, config)
    clean = make_view({"kind": "eval"}, config)
    distance = np.zeros((len(KINDS), 5))
    for row in range(3):
        image = images.image(row).resize((side, side))
        reference = clean(image, row, 0)[0].float()
        for epoch in range(20):
            pixels, extras = view(image, row, epoch)
            assert (pixels.dtype, extras) == (torch.uint8, ())
            distance[epoch // 5, epoch % 5] += (pixels.float() - reference).abs().mean().item() / 3
    assert (distance[:, 0] > 0.1).all()
    for kind, row in zip(KINDS, distance, strict=True):
        growing = row[:3] if kind == "zoom" else row  # two strong zooms are equally unlike the whole
        assert (np.diff(growing) > 0).all(), (kind, row)


def test_zoom_is_the_central_part(images: ImageDataset) -> None:
    view = make_view({"kind": "deteriorations", "seed": 3, "draws": dumped(Deteriorations())}, CONFIG)
    clean = make_view({"kind": "eval"}, CONFIG)
    image = images.image(5).resize((60, 40))
    assert view(image, 5, 13)[0].equal(clean(image.crop((21, 14, 39, 26)), 5, 0)[0])  # severity 4 keeps 0.3


def test_noise_is_one_pattern_scaled() -> None:
    strengths = (0.02, 0.04, 0.06, 0.08, 0.1)
    spec = {"kind": "deteriorations", "seed": 0, "draws": dumped(Deteriorations(noise=strengths))}
    view = make_view(spec, CONFIG)
    grey = Image.new("RGB", (32, 32), (128,) * 3)
    for sample_id in range(3):
        noise = [view(grey, sample_id, 15 + k)[0].float() - 128 for k in range(5)]
        for found, strength in zip(noise, strengths, strict=True):
            assert found.std().item() == pytest.approx(255 * strength, rel=0.05)
            assert abs(found.mean().item()) < 255 * strength * 4 / 3072**0.5
            assert ((noise[4] * strength / 0.1 - found).abs() <= 1.01).all()
    assert not view(grey, 0, 15)[0].equal(view(grey, 1, 15)[0])


def test_a_deterioration_does_not_depend_on_the_others(images: ImageDataset) -> None:
    listed = dumped(Deteriorations())
    view = make_view({"kind": "deteriorations", "seed": 0, "draws": listed}, CONFIG)
    backwards = make_view({"kind": "deteriorations", "seed": 0, "draws": listed[::-1]}, CONFIG)
    other_seed = make_view({"kind": "deteriorations", "seed": 2, "draws": listed}, CONFIG)
    image = images.image(9)
    for epoch in range(20):
        assert view(image, 9, epoch)[0].equal(backwards(image, 9, 19 - epoch)[0])
    for epoch in (5, 15):  # box and noise
        assert not view(image, 9, epoch)[0].equal(other_seed(image, 9, epoch)[0])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_are_mixed_as_their_labels_say(kind: str) -> None:
    """Images of one grey value each: what share of which image a pixel holds can be read off."""
    colours = Colours()
    spec = {**with_policy(kind, alpha=1.0), "color_jitter": 0}
    view = make_view(spec, CONFIG, colours)
    assert view.extras == ("partner_label", "label_weight")
    weights, partners = [], []
    for position in range(len(colours)):
        for epoch in range(12):
            pixels, (partner, weight) = view(colours.image(position), int(colours.sample_id[position]), epoch)
            if weight == 1 and partner == position:
                assert (pixels == 5 * position).all()
                continue
            weights.append(weight)
            partners.append(int(partner))
            if kind == "mixup":
                assert (pixels - (weight * 5 * position + (1 - weight) * 5 * partner)).abs().max() <= 0.51
            elif partner != position:
                own = pixels == 5 * position
                assert ((pixels == 5 * partner) | own).all()
                assert own.float().mean().item() == pytest.approx(weight)
                box = (~own).all(dim=0).numpy()
                assert box.sum() == box.any(axis=0).sum() * box.any(axis=1).sum()
    assert 190 <= len(weights) <= 290
    assert stats.chisquare(np.bincount(partners, minlength=len(colours))).pvalue > 1e-3
    if kind == "mixup":
        assert stats.kstest(weights, "uniform").pvalue > 1e-3
    else:
        # The border cuts the box, so more of the own image is left than the uniform weight that was drawn.
        assert 0.55 < np.mean(weights) < 0.8


def test_the_weight_is_beta_distributed() -> None:
    view = make_view(with_policy("mixup", alpha=0.2, probability=1), CONFIG, Colours())
    image = Colours().image(3)
    weights = [view(image, 103, epoch)[1][1] for epoch in range(150)]
    assert stats.kstest(weights, stats.beta(0.2, 0.2).cdf).pvalue > 1e-3


def test_the_partner_is_augmented_by_its_own_draw(images: ImageDataset) -> None:
    plain = make_view(PLAIN, CONFIG)
    view = make_view(with_policy("mixup", probability=1, alpha=1), CONFIG, images)
    for epoch in range(5):
        pixels, (partner, weight) = view(images.image(4), int(images.sample_id[4]), epoch)
        own = plain(images.image(4), int(images.sample_id[4]), epoch)[0].float()
        mixes = [
            weight * own + (1 - weight) * plain(images.image(row), int(images.sample_id[row]), epoch)[0]
            for row in np.flatnonzero(images.label == partner)
        ]
        assert min((pixels - mixed).abs().max() for mixed in mixes) <= 0.51


def test_an_unreadable_partner_gives_its_place_to_the_next() -> None:
    spec = with_policy("mixup", probability=1)
    whole = make_view(spec, CONFIG, Colours(8))
    view = make_view(spec, CONFIG, Colours(8, unreadable=(3, 4, 7)))
    moved = {3: 5, 4: 5, 7: 0}
    seen = set()
    for epoch in range(80):
        image = Colours(8).image(1)
        (expected, weight), (found, same_weight) = whole(image, 101, epoch)[1], view(image, 101, epoch)[1]
        assert (found, same_weight) == (moved.get(int(expected), expected), weight)
        seen.add(int(expected))
    assert seen == set(range(8))


@pytest.mark.parametrize(
    ("spec", "unknown", "allowed"),
    [
        ({"kind": "evil"}, "evil", ("augmented", "centre_crop", "deteriorations", "eval")),
        ({**PLAIN, "policy": {"kind": "x", "probability": 1}}, "x", POLICIES),
        ({"kind": "deteriorations", "seed": 0, "draws": [{"kind": "fog", "severity": 1, "strength": 1}]}, "fog", KINDS),
    ],
    ids=str,
)
def test_unknown_kinds_are_named(spec: dict[str, Any], unknown: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match=unknown) as caught:
        make_view(spec, CONFIG)
    assert all(f"'{kind}'" in str(caught.value) for kind in allowed)


def test_mixing_needs_images_to_mix_with() -> None:
    with pytest.raises(PipelineError, match="policy 'cutmix' mixes two images"):
        make_view(with_policy("cutmix"), CONFIG)


def test_an_epoch_without_a_draw_is_an_error() -> None:
    view = make_view({"kind": "deteriorations", "seed": 0, "draws": dumped(Deteriorations())}, CONFIG)
    with pytest.raises(PipelineError, match="20 draws, so there is no epoch 20"):
        view(Image.new("RGB", (8, 8)), 0, 20)


@pytest.mark.parametrize(
    "changes",
    [
        {"blur": (0.1, 0.1, 0.2, 0.3, 0.4)},
        {"box": (0.1, 0.2, 0.3, 0.4, 1.1)},
        {"zoom": (0.1, 0.2, 0.3, 0.4, 0.5)},
        {"noise": (0.0, 0.1, 0.2, 0.3, 0.4)},
        {"noise": (0.1, 0.2)},
    ],
    ids=str,
)
def test_severities_must_grow(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        Deteriorations(**changes)


def test_draws_list_every_kind_at_every_severity() -> None:
    listed = draws(Deteriorations())
    assert [(draw.kind, draw.severity) for draw in listed] == [(k, s) for k in KINDS for s in range(1, 6)]
    assert listed[11].strength == Deteriorations().zoom[1]


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "augmx"},
        {"kind": "blur", "radius": (0.2, 0.1)},
        {"kind": "small_crops", "scale": (0.1, 1.5)},
        {"kind": "box_overlay", "area": (0, 0.5)},
        {"kind": "mixup", "probability": 1.2},
        {"kind": "cutmix", "alpha": 0},
        {"kind": "augmix", "alpha": 1},
    ],
    ids=str,
)
def test_wrong_policies_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Policy).validate_python(section)
