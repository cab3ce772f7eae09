"""Which outputs of a classifier the classes of a dataset are: by lists of names, in the order of the outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from pipeline_lib.core.errors import PipelineError, did_you_mean
from pipeline_lib.datasets.base import resolve
from pipeline_lib.datasets.class_folders import is_called_like_a_split

# Lists of timm's: of WordNet ids, which is what the folders of ImageNet are called.
ClassList = Literal["imagenet1k", "imagenet12k", "imagenet21k", "imagenet21k_miil", "imagenet22k", "imagenet22k_ms"]


def class_list(name: ClassList) -> list[str]:
    """Return the wnids of a list of timm's, in the order of the outputs of the classifiers that were trained on it."""
    from timm.data.imagenet_info import ImageNetInfo

    return list(ImageNetInfo(name).label_names())


def files_of_outputs(lists: Sequence[str], data_dir: Path) -> list[Path]:
    """Return the files among lists of outputs: those that timm doesn't have."""
    return [resolve(data_dir, name) for name in lists if name not in get_args(ClassList)]


def positions_in_outputs(
    classes: Sequence[str], lists: Sequence[str], data_dir: Path, dataset: str
) -> dict[str, list[int]]:
    """Return the output of each class, int [k], by the number of outputs of the classifier.

    Parameters
    ----------
    classes : sequence of str [k]
        Names of the classes.
    lists : sequence of str
        Names of timm's lists, or text files with a name in each line; each of another length.
    data_dir : Path
        Where relative paths start.
    dataset : str
        What messages call the dataset.

    Raises
    ------
    PipelineError
        A class is not in a list, or a list can't be read, has a name twice or is as long as another one.
    """
    found: dict[str, list[int]] = {}
    for source in lists:
        outputs = class_list(source) if source in get_args(ClassList) else _read(resolve(data_dir, source))  # type: ignore[arg-type]  # which get_args says
        position = {name: number for number, name in enumerate(outputs)}
        missing = [name for name in classes if name not in position]
        if missing:
            like_splits = [name for name in missing if is_called_like_a_split(name)]
            hint = f"; '{like_splits[0]}' is called like a split: see 'splits'" if like_splits else ""
            raise PipelineError(
                f"datasets.{dataset}.outputs: class '{missing[0]}' is not among the {len(outputs):,} names of {source} "
                f"({len(missing):,} of {len(classes):,} classes are not){hint or did_you_mean(missing[0], outputs)}; "
                "give a file with a name a line in the order of the outputs, or take those classes away"
            )
        if str(len(outputs)) in found:
            raise PipelineError(
                f"datasets.{dataset}.outputs: {' and '.join(lists)} must differ in length, by which a classifier finds "
                f"its own, but two have {len(outputs):,} names; leave one out"
            )
        found[str(len(outputs))] = [position[name] for name in classes]
    return found


def _read(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        raise PipelineError(
            f"{path}: no such list of outputs; give a file, or one of {', '.join(get_args(ClassList))}"
        ) from None
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path}: can't be read as a list of outputs ({error}); save it as UTF-8 text") from None
    while names and not names[-1]:
        names.pop()
    for name, times in Counter(names).items():
        if times > 1 or not name:
            fault = f"{name!r} stands there {times} times" if name else "has an empty line"
            raise PipelineError(f"{path}: {fault}; each output needs a line with a name of its own")
    return names
