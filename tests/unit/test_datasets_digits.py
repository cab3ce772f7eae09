from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import digits
from tests.unit.dataset_worlds import open_split


def test_labels_and_pictures_are_scikit_learns(tmp_path):
    dataset = open_split(tmp_path, {"kind": "digits", "image_size": 8})
    values, target = load_digits(return_X_y=True)
    assert dataset.label.tolist() == target.tolist()
    assert dataset.classes == list("0123456789")
    for position in (0, 1, 900, 1796):
        shown = np.asarray(dataset.image(position), float)[:, :, 1]
        np.testing.assert_allclose(shown, values[position].reshape(8, 8) * 255 / 16, atol=0.5)


def test_enlarged_to_the_configured_size_under_the_configured_split(tmp_path):
    dataset = open_split(tmp_path, {"kind": "digits", "image_size": 40, "split": "scans"}, "scans")
    image = dataset.image(10)
    assert (image.mode, image.size) == ("RGB", (40, 40))


def test_opener_survives_pickling():
    opener = digits.open_images(digits.Options(kind="digits"), None)
    assert pickle.loads(pickle.dumps(opener))("17").tobytes() == opener("17").tobytes()


def test_wrong_split_is_named(tmp_path):
    with pytest.raises(PipelineError, match="no split 'tests'; it has test; did you mean 'test'"):
        open_split(tmp_path, {"kind": "digits"}, "tests")
