"""Map uncertainties to the probability of a wrong nearest neighbour, and find thresholds that control the error.

Some images of a set are labelled: they fit the map and the thresholds (thresholds.csv). The others tell how good both
are: scores.csv, reliability.csv, and its figure reliability.png and .pdf. calibration.json is the map of what a
checkpoint's `load` and `score` give by default, all heads averaged by rank; calibration_seed<k>.json that of one head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.config.evaluation import Calibration
from pipeline_lib.config.figures import Look
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.evaluation.spec import SetSpec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("baselines", "the baselines' evaluation of the set, which says whose neighbour is wrong"),
    Input("scores", "the heads' evaluation of the same set"),
    Input("upstream", "the heads' evaluation of the upstream set, among whose images ranks are counted"),
)
OUTPUT = "calibration/{backbone}/{variant}/{dataset}/{split}"


class Spec(SetSpec):
    """Which heads are calibrated on which set, how, and how the figure is drawn."""

    variant: str
    seeds: tuple[int, ...]
    calibration: Calibration
    look: Look

    @classmethod
    def of(cls, config: Config, backbone: str, variant: str, dataset: str, split: str) -> Spec:
        """Return the spec of a job."""
        return cls(
            backbone=backbone,
            dataset=dataset,
            split=split,
            variant=variant,
            seeds=config.seeds,
            calibration=config.evaluation.calibration,
            look=config.figures.look("reliability"),
        )


def inputs(config: Config, backbone: str, variant: str, dataset: str, split: str) -> Refs:
    """Return the artefacts that a job reads."""
    images = {"backbone": backbone, "dataset": dataset, "split": split}
    of_upstream = {"dataset": config.upstream.dataset, "split": config.upstream.eval_split}
    return {
        "baselines": Ref.to("baselines", **images),
        "scores": Ref.to("evaluate_heads", variant=variant, **images),
        "upstream": Ref.to("evaluate_heads", backbone=backbone, variant=variant, **of_upstream),
    }


def check_images(
    config: Config, images: int, classes: int, backbone: str, variant: str, dataset: str, split: str
) -> None:
    """Raise `PipelineError` where fewer images are left to test on than are labelled."""
    count = config.evaluation.calibration.images
    if images < 2 * count:
        raise PipelineError(
            f"'{dataset}/{split}' has {images} images; with {count} to calibrate on, fewer than {count} are left to "
            f"test on; lower evaluation.calibration.images to {images // 2} or less"
        )


def run(job: Job[Spec]) -> None:
    """Calibrate, draw and write."""
    from pipeline_lib.calibration.evaluate import ALL, calibrate_heads, write_calibration
    from pipeline_lib.evaluation.alignment import require_same_images
    from pipeline_lib.evaluation.scores import read_scores
    from pipeline_lib.figures import reliability, style
    from pipeline_lib.heads.rank_mean import rank_mean

    spec = job.spec
    baselines = read_scores(job.input("baselines"), spec.same_set())
    scores = read_scores(job.input("scores"), spec.same_set("variant"))
    require_same_images(baselines["sample_id"], scores["sample_id"], job.input("scores"))
    upstream = read_scores(
        job.input("upstream"), {"backbone": spec.backbone, "variant": spec.variant, "is_upstream": True}
    )
    by_seed, known = scores.of_seeds(spec.seeds), upstream.of_seeds(spec.seeds)
    uncertainties = {ALL: rank_mean(list(by_seed.values()), list(known.values()))}
    uncertainties |= {f"seed{seed}": uncertainty for seed, uncertainty in by_seed.items()}
    heads = calibrate_heads(uncertainties, ~baselines["correct"], spec.calibration, spec.dataset)
    bins = {name: head.reliability for name, head in heads.items()}
    named = f"{style.shorten(spec.backbone)}, variant {style.shorten(spec.variant)}, {spec.dataset}"
    with style.titles(spec.look.title):
        figure = reliability.draw(bins, named, spec.calibration.images, spec.look.width, spec.look.height)
    with job.writing() as draft:
        write_calibration(draft.path, heads)
        style.save(figure, draft.path / "reliability.png", draft.path / "reliability.pdf", spec.look.dpi)
