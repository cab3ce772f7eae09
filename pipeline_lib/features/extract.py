"""Extraction of blocks: images in, cached arrays out.

    dataset --decode once--> RGB --views, per epoch--> uint8 --batch, padded--> backbone --> embedding
                                                                                        \\-> logits -> scalars

The classifier runs here and never again: what is kept of its logits is the task loss, the entropy of the
predicted classes, and the rank of the true class. Of a backbone without a classifier the representations alone are
kept. A model with an uncertainty of its own (a method of the URL benchmark) has that kept too.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.base import Backbone
from pipeline_lib.config.policies import MIXING_POLICIES
from pipeline_lib.config.views import Augmented
from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import canonical_json
from pipeline_lib.core.device import choose_device
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.views import make_view
from pipeline_lib.features import store
from pipeline_lib.features.classifier import Classifier, check_order, classifier_of
from pipeline_lib.features.decoding import Draws, decoded_images, drawn_on
from pipeline_lib.features.rows import digest_of_rows
from pipeline_lib.features.spec import BlockSpec
from pipeline_lib.training.state import SavedState

_OWN_FIELDS = ("view", "epochs")
# How much of its work a killed job loses, at most.
SAVE_SECONDS = 120.0


def extract_blocks(jobs: Sequence[Job[BlockSpec]], on_images: Callable[[int], None] = lambda count: None) -> None:
    """Extract blocks of the same images, which are decoded once; bytes equal those of one call per block.

    Parameters
    ----------
    jobs
        One per block. They may differ in `view` and `epochs` alone.
    on_images
        Told the number of views after each batch.

    Raises
    ------
    UnreadableImageError
        For an image that can't be decoded (more than the dataset allows).
    PipelineError
        For representations or losses that are not finite, a classifier of other classes than the upstream dataset's,
        and blocks that can't be extracted together.
    """
    first = _shared(jobs)
    spec = first.spec
    torch.set_num_threads(spec.threads)
    images = ImageDataset(first.input("dataset"), spec.split, spec.samples)
    # Images that are mixed with others have their partners anywhere in the split.
    policies = [job.spec.view.policy for job in jobs if isinstance(job.spec.view, Augmented)]
    mixes = any(policy is not None and policy.kind in MIXING_POLICIES for policy in policies)
    partners = ImageDataset(first.input("dataset"), spec.split) if mixes else images
    device = choose_device(spec.device)
    backbone = open_backbone(first.input("backbone"), device=device, precision=spec.precision)
    upstream = first.optional_input("upstream")
    made_with = None if upstream is None else artefacts.read(upstream, "dataset")
    classifier = classifier_of(backbone, images.manifest, made_with, spec)
    blocks = [_Block(job.spec, images, partners, backbone, classifier, on_images) for job in jobs]
    views = [(block.view, block.epochs) for block in blocks]
    saved, specs = SavedState(first), [canonical_json(job.spec.plain()) for job in jobs]
    state = saved.read() or {}
    if state.get("of") != specs:
        state = {"of": specs, "kept": [], "skipped": [], "next": 0}
    kept: list[int] = state["kept"]
    skipped: list[dict[str, Any]] = state["skipped"]
    for block, arrays in zip(blocks, state.get("arrays", ()), strict=False):
        block.restore(arrays, len(kept))
    todo, last_saved = range(state["next"], len(images)), time.monotonic()
    with torch.inference_mode():
        for decoded in decoded_images(images, todo, views, first.settings.workers, device):
            if time.monotonic() - last_saved > SAVE_SECONDS:
                state |= {"arrays": [block.state(len(kept)) for block in blocks], "next": decoded.position}
                saved.write(state)
                last_saved = time.monotonic()
            if decoded.error is not None:
                skipped.append({"sample_id": int(images.sample_id[decoded.position]), "error": decoded.error})
                if len(skipped) > images.skip_unreadable:
                    raise UnreadableImageError(
                        f"{decoded.error}; repair or remove it, or allow up to N such images with "
                        f"datasets.{images.name}.skip_unreadable: N (of fit, --skip-unreadable N)"
                    )
                continue
            for block, draws in zip(blocks, decoded.draws, strict=True):
                block.add(draws, len(kept), decoded.position)
            kept.append(decoded.position)
        for block in blocks:
            block.run()
    for job, block in zip(jobs, blocks, strict=True):
        block.write(job, kept, skipped)
    saved.remove()


def _shared(jobs: Sequence[Job[BlockSpec]]) -> Job[BlockSpec]:
    """Return the first job, after a check that the others share all but the view's own fields, and the inputs."""
    first, *others = jobs
    for other in others:
        for field in BlockSpec.model_fields.keys() - set(_OWN_FIELDS):
            one, another = getattr(first.spec, field), getattr(other.spec, field)
            if one != another:
                raise PipelineError(
                    f"blocks that are extracted together must share all but {' and '.join(_OWN_FIELDS)}, but '{field}' "
                    f"is {one!r} in one and {another!r} in another; extract them one by one"
                )
        if first.inputs != other.inputs:
            raise PipelineError(
                f"blocks that are extracted together must be of one dataset and backbone: {first.output} and "
                f"{other.output} are not; extract them one by one"
            )
    return first


class _Block:
    """One block being extracted: its arrays, and images that wait for their batch to be full.

    The last batch is padded by repeating its last image. Every forward pass thus has the same shape, whatever the
    block size: a matrix product of another shape may sum in another order and so change the last bits.
    """

    def __init__(
        self,
        spec: BlockSpec,
        images: ImageDataset,
        partners: ImageDataset,
        backbone: Backbone,
        classifier: Classifier,
        on_images: Callable[[int], None],
    ) -> None:
        self._spec, self._images, self._backbone, self._on_images = spec, images, backbone, on_images
        self._classifier = classifier
        # Only an augmented view draws labels: on clean images an image's label is its own.
        view = spec.view

        def labels_of(some: ImageDataset) -> Callable[[int, int], int] | None:
            return functools.partial(some.drawn_label, view.seed) if isinstance(view, Augmented) else None

        self._drawn_label = labels_of(images)
        self.view = make_view(spec.view, backbone.data_config, partners, labels_of(partners))
        self.epochs = range(*spec.epochs)
        extras = (*self.view.extras, "uncertainty") if backbone.has_uncertainty else self.view.extras
        self._arrays = _allocate(spec, backbone, extras, classifier.label is not None)
        # Of clean images, whose classes the classifier should know.
        is_clean = spec.view.kind == "eval" and classifier.label is not None
        self._predicted = np.empty((1, spec.samples[1] - spec.samples[0]), np.int64) if is_clean else None
        # Made once: a new batch of photographs would be thousands of new pages each time. A GPU fetches pinned ones.
        shape = (spec.batch_size, *backbone.data_config["input_size"])
        place = drawn_on(self.view, backbone.mean.device)
        pinned = backbone.mean.is_cuda and place.type == "cpu"
        self._pixels = torch.empty(shape, dtype=torch.uint8, device=place, pin_memory=pinned)
        self._rows: list[tuple[int, int, int]] = []

    def add(self, draws: Draws, row: int, position: int) -> None:
        """Add all epochs of an image; runs the backbone whenever a batch is full."""
        for column, name in enumerate(self.view.extras):
            self._arrays[name][:, row] = draws.extras[:, column]
        for epoch, pixels in enumerate(draws.pixels):
            self._pixels[len(self._rows)] = pixels
            self._rows.append((epoch, row, position))
            if len(self._rows) == self._spec.batch_size:
                self.run()

    def state(self, rows: int) -> dict[str, Tensor]:
        """Return what is known of the first rows; what waits for a full batch is run."""
        self.run()
        return {name: torch.from_numpy(values[:, :rows].copy()) for name, values in self._all_arrays().items()}

    def restore(self, state: Mapping[str, Tensor], rows: int) -> None:
        """Take over what `state` returned."""
        for name, values in self._all_arrays().items():
            values[:, :rows] = state[name].numpy()
        self._on_images(rows * len(self.epochs))

    def _all_arrays(self) -> dict[str, np.ndarray]:
        return self._arrays | ({} if self._predicted is None else {"predicted": self._predicted})

    def run(self) -> None:
        """Run what waits through the backbone and put its rows where they belong."""
        if not self._rows:
            return
        spec, images, count = self._spec, self._images, len(self._rows)
        self._pixels[count:] = self._pixels[count - 1]
        encoded = self._backbone.encode(self._pixels)
        epoch, row, position = (list(column) for column in zip(*self._rows, strict=True))
        stored = encoded.embedding[:count].float().cpu().numpy().astype(spec.dtype)
        values = {"embedding": stored, **self._scalars(encoded.logits[:count], epoch, row, position)}
        if encoded.uncertainty is not None:
            values["uncertainty"] = encoded.uncertainty[:count].float().cpu().numpy()
        for name, batch in values.items():
            finite = np.isfinite(batch).reshape(count, -1).all(axis=1)
            if not finite.all():
                location = images.location(position[int(np.argmin(finite))])
                raise PipelineError(
                    f"'{name}' of backbone '{spec.backbone}' is not finite in {spec.dtype} for image {location} "
                    f"of dataset '{images.name}'; check the weights, or try features.dtype or features.precision: "
                    "float32 (of fit, --dtype float32 or --precision float32)"
                )
            self._arrays[name][epoch, row] = batch
        self._rows = []
        self._on_images(count)

    def _scalars(self, logits: Tensor, epoch: list[int], row: list[int], position: list[int]) -> dict[str, np.ndarray]:
        """Return what is kept of the logits [n, outputs]: one number per row and array, as `Classifier.scalars`.

        The true class of an augmented image is drawn from its votes, where it has some; all other views keep the label.
        For a mixed image, task_loss = -(w ln p_label + (1 - w) ln p_partner) with w its `label_weight`.
        A backbone without a classifier has none of them.
        """
        if not self._backbone.num_classes:
            return {}
        output = self._classifier.label
        label = None if output is None else torch.as_tensor(output[self._labels(epoch, position)], device=logits.device)
        scalars, log_probability = self._classifier.scalars(logits, label)
        if self._predicted is not None:
            self._predicted[epoch, row] = log_probability.argmax(dim=1).cpu().numpy()
        if output is not None and "partner_label" in self.view.extras:
            partner = torch.as_tensor(output[self._arrays["partner_label"][epoch, row].astype(np.int64)])
            weight = torch.as_tensor(self._arrays["label_weight"][epoch, row], device=logits.device)
            of_partner = log_probability.gather(1, partner.to(logits.device)[:, None])[:, 0]
            scalars["task_loss"] = weight * scalars["task_loss"] - (1 - weight) * of_partner
        return {name: values.cpu().numpy() for name, values in scalars.items()}

    def _labels(self, epoch: list[int], position: list[int]) -> np.ndarray:
        """Return the label of each draw, int64 [n]; epoch: counted from the first of the block."""
        if self._drawn_label is None:
            return self._images.label[position]
        drawn = [self._drawn_label(self.epochs[e], image) for e, image in zip(epoch, position, strict=True)]
        return np.array(drawn, np.int64)

    def write(self, job: Job[BlockSpec], kept: list[int], skipped: list[dict[str, Any]]) -> None:
        """Write the artefact; kept: positions of the images in its rows, skipped: those that don't decode."""
        spec, images = self._spec, self._images
        trained_here = self._backbone.manifest.spec.get("train_split") is not None  # on these classes in this order
        if self._predicted is not None and self._classifier.label is not None and not trained_here:
            name = f"backbone '{spec.backbone}' on upstream dataset '{images.name}'"
            label = self._classifier.label[images.label[kept]]
            check_order(
                self._predicted[0, : len(kept)], label, self._classifier.outputs(self._backbone.num_classes), name
            )
        arrays = {name: np.ascontiguousarray(values[:, : len(kept)]) for name, values in self._arrays.items()}
        arrays |= {
            "sample_id": images.sample_id[kept],
            "label": images.label[kept],
            "epoch": np.arange(*spec.epochs, dtype=np.int64),
        }
        with job.writing() as draft:
            store.write_arrays(draft.path, spec.format, arrays, spec.chunk_rows)
            draft.facts.update(
                rows=len(kept),
                dim=self._backbone.dim,
                arrays=sorted(arrays),
                skipped=skipped,
                rows_digest=f"{digest_of_rows(arrays):032x}",
            )


def _allocate(
    spec: BlockSpec, backbone: Backbone, extras: tuple[str, ...], with_task_loss: bool
) -> dict[str, np.ndarray]:
    """Return the block's empty arrays, [epochs, samples, ...]; memory is bounded by the size of a block."""
    shape = (spec.epochs[1] - spec.epochs[0], spec.samples[1] - spec.samples[0])
    arrays = {"embedding": np.empty((*shape, backbone.dim), spec.dtype)}
    if backbone.num_classes:
        arrays["class_entropy"] = np.empty(shape, np.float32)
    if with_task_loss:
        arrays |= {"task_loss": np.empty(shape, np.float32), "label_rank": np.empty(shape, np.int32)}
    return arrays | {name: np.empty(shape, np.float32) for name in extras}
