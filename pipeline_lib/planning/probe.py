"""How fast this machine is: short measurements of decoding, of each view, and of each backbone's forward pass.

Backbones have the config's architecture and image size with random weights. Images are those of the config where
they are drawn; for all others, photographs of ordinary size and detail are made up.
"""

from __future__ import annotations

import functools
import io
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from pipeline_lib.backbones.base import Backbone
from pipeline_lib.config import kinds
from pipeline_lib.config.section import KindSection
from pipeline_lib.config.views import view_spec
from pipeline_lib.core.artefacts import Manifest, canonical_json
from pipeline_lib.core.device import choose_device
from pipeline_lib.core.jobs import Job
from pipeline_lib.datasets import archive
from pipeline_lib.datasets.images import STAGE, ImageDataset, write_dataset
from pipeline_lib.datasets.spec import DatasetSpec
from pipeline_lib.datasets.views import make_view
from pipeline_lib.planning.plan import Speed
from pipeline_lib.planning.split_sizes import DRAWN_KINDS

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

_PHOTOS, _PHOTO_SIZE, _UNKNOWN_CLASSES = 16, (500, 375), 1_000


class Probe:
    """Measures each thing once, for about `seconds`; 0 = nothing is measured, only the backbones' sizes are read."""

    def __init__(self, config: Config, directory: Path, seconds: float) -> None:
        """directory: an empty folder for the images that are made up."""
        self._config, self._directory, self._seconds = config, directory, seconds
        self.device = choose_device(config.features.device)
        self._speeds: dict[str, Speed] = {}
        self._decoding: dict[str, float] = {}
        self._drawing: dict[str, float] = {}

    def backbone(self, name: str, classes: int | None) -> Speed:
        """Return the speed of a backbone; those that differ in their weights alone are measured once."""
        options = self._config.backbone(name)
        key = _architecture(options)
        if key not in self._speeds:
            self._speeds[key] = self._measure_backbone(options, classes)
        return self._speeds[key]

    def decoding_seconds(self, dataset: str) -> float:
        """Return the seconds that one core needs to decode or draw an image."""
        images = self._images(dataset)
        if images.name not in self._decoding:
            self._decoding[images.name] = self._time(lambda turn: images.image(turn % len(images)))
        return self._decoding[images.name]

    def drawing_seconds(self, dataset: str, view: str, data_config: Mapping[str, Any]) -> float:
        """Return the seconds that one core needs to make one draw of a view of a decoded image, over all its epochs."""
        images, spec = self._images(dataset), view_spec(self._config.features, view)
        key = canonical_json([images.name, spec.model_dump(mode="json"), dict(data_config)])
        if key not in self._drawing:
            make, epochs = make_view(spec, data_config, images), self._config.view_epochs(view)
            decoded = [images.image(position) for position in range(min(_PHOTOS, len(images)))]

            def draw(turn: int) -> None:
                position = turn % len(decoded)
                make(decoded[position], int(images.sample_id[position]), turn % epochs)

            self._drawing[key] = self._time(draw)
        return self._drawing[key]

    def _time(self, work: Callable[[int], Any]) -> float:
        """Return the seconds per call of work(0), work(1), ...; the first call is not counted."""
        work(0)
        turn, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < self._seconds / 4 or turn < 4:
            turn += 1
            work(turn)
        return elapsed / turn

    def _measure_backbone(self, options: KindSection, classes: int | None) -> Speed:
        features = self._config.features
        kind = kinds.load("backbones", options.kind)
        # A model with weights brings its own classes; one that is trained here has those of the upstream dataset.
        own_classes = {"timm": getattr(options, "num_classes", None), "custom": None}
        num_classes = own_classes.get(options.kind, classes or _UNKNOWN_CLASSES)
        if not self._seconds and options.kind in ("timm", "trained"):
            with torch.device("meta"):  # the shapes alone, without memory or numbers
                encoder = kind.build(options, num_classes).eval()
                data_config = kind.data_config(options, encoder)
                dim = encoder(torch.zeros(1, *data_config["input_size"]))[0].shape[1]
                return Speed(dim, False, data_config)
        encoder = kind.build(options, num_classes)
        data_config = kind.data_config(options, encoder)
        made_up = Manifest(Path(), "backbone", {}, {}, {}, {}, {}, "", "")
        torch.set_num_threads(features.threads)
        backbone = Backbone(encoder, data_config, 0, 0, made_up, self.device, features.precision)
        size = data_config["input_size"]
        with torch.inference_mode():
            dim = backbone.encode(torch.zeros(1, *size, dtype=torch.uint8)).embedding.shape[1]
            batch, rate = 1, None
            while self._seconds:
                rate, elapsed = self._forward_rate(backbone, torch.randint(0, 256, (batch, *size), dtype=torch.uint8))
                # A batch that takes long enough says what larger ones would.
                if batch >= features.batch_size or elapsed > self._seconds / 2:
                    break
                batch = min(features.batch_size, batch * 4)
        return Speed(dim, backbone.has_uncertainty, data_config, batch, rate)

    def _forward_rate(self, backbone: Backbone, pixels: torch.Tensor) -> tuple[float, float]:
        """Return images/s and the seconds of one batch, after a first one that is not counted."""
        count, start = -1, time.perf_counter()
        while True:
            backbone.encode(pixels).embedding.float().cpu()
            count += 1
            if count == 0:
                first, start = time.perf_counter() - start, time.perf_counter()
                if first > self._seconds:
                    return len(pixels) / first, first
            elif (elapsed := time.perf_counter() - start) > self._seconds / 2 or count >= 50:
                return len(pixels) * count / elapsed, elapsed / count

    def _images(self, dataset: str) -> ImageDataset:
        drawn = self._config.datasets[dataset].kind in DRAWN_KINDS
        return self._drawn_images(dataset) if drawn else self._photographs

    @functools.cache  # noqa: B019 (a probe lives as long as its plan)
    def _drawn_images(self, dataset: str) -> ImageDataset:
        directory = self._directory / "drawn" / dataset
        write_dataset(Job(STAGE, DatasetSpec.of(self._config, dataset), {}, directory))
        return ImageDataset(
            directory, next(entry.split for entry in self._config.evaluation_sets if entry.dataset == dataset)
        )

    @functools.cached_property
    def _photographs(self) -> ImageDataset:
        path = self._directory / "photographs.zip"
        _write_photographs(path)
        options = archive.Options(kind="archive", path=str(path.resolve()))
        directory = self._directory / "photographs"
        spec = DatasetSpec(name="photographs", options=options, data_dir=str(self._directory))
        write_dataset(Job(STAGE, spec, {}, directory))
        return ImageDataset(directory, "test")


def _architecture(options: KindSection) -> str:
    """Return text that is equal for backbones of the same shape, however they were trained."""
    names = ("seed", "training", "checkpoint", "pretrained", "epochs", "learning_rate", "batch_size")
    return canonical_json({key: value for key, value in options.model_dump(mode="json").items() if key not in names})


def _write_photographs(path: Path) -> None:
    """Write an archive of JPEGs of 500 x 375 pixels with the detail, and so the size, of photographs (about 90 kB)."""
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(_PHOTOS):
            coarse = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize(_PHOTO_SIZE)
            fine = Image.fromarray(generator.integers(0, 255, (*_PHOTO_SIZE[::-1], 3), dtype=np.uint8))
            photograph = Image.blend(coarse, fine.filter(ImageFilter.GaussianBlur(1)), 0.4)
            data = io.BytesIO()
            photograph.save(data, "JPEG", quality=92)
            archive.writestr(f"class{number % 2}/{number:02d}.jpg", data.getvalue())
