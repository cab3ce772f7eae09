from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.heads import numpy_head
from pipeline_lib.heads.checkpoint import TrainedHead, read_head
from pipeline_lib.heads.curve import live_curve
from pipeline_lib.heads.loss import loss_of
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.schedule import peak_learning_rate
from pipeline_lib.heads.spec import HeadSpec
from pipeline_lib.heads.stream import shuffled_buffers
from pipeline_lib.heads.train import train_heads
from tests.unit.heads_world import CachedRows, head_spec, learnable_rows, small_training, stored, trained

ROOT = Path(__file__).parents[2]


def train_plainly(rows: CachedRows, training, seed: int) -> dict[str, np.ndarray]:
    """The same training with nn.Module, autograd and a plain optimiser, from the stream's batches."""
    head = UncertaintyHead(rows.dim, training.hidden, seed)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=0.0, betas=training.betas, weight_decay=training.weight_decay, foreach=False
    )
    total = rows.rows * rows.epochs // training.batch_size * training.batch_size
    episodes = math.ceil(total / training.episode_samples)
    images = 0
    for buffer in shuffled_buffers(
        rows, rows.epochs, training.batch_size, training.shuffle_rows, training.shuffle_buffer, [seed]
    ):
        embedding = torch.from_numpy(np.concatenate(buffer.segments)).float()
        for batch in np.split(buffer.orders[0], len(buffer.orders[0]) // training.batch_size):
            cosine = (1 + math.cos(math.pi * (images // training.episode_samples) / episodes)) / 2
            final = training.final_learning_rate
            optimizer.param_groups[0]["lr"] = final + (peak_learning_rate(training) - final) * cosine
            optimizer.zero_grad()
            uncertainty = head(embedding[batch])
            loss_of(training)(uncertainty, torch.from_numpy(buffer.task_loss[batch]))[0].backward()
            optimizer.step()
            images += training.batch_size
    return head.to_numpy()


def assert_close(weights, expected, tolerance=2e-4):
    assert set(weights) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, atol=tolerance, err_msg=name)


def order_of_unseen(weights) -> float:
    """Share of pairs of unseen rows that a head puts in the order of their task losses."""
    unseen = learnable_rows(2000, 1, seed=99)
    uncertainty = numpy_head.score(weights, unseen.read("embedding", 0, 0, 2000))
    task_loss = unseen.read("task_loss", 0, 0, 2000)
    return float(np.mean((np.diff(uncertainty) > 0)[::2] == (np.diff(task_loss) > 0)[::2]))


def test_training_is_the_plain_loop_with_autograd():
    rows, training = learnable_rows(700, 3), small_training()
    (head,) = trained(rows, training, [4])
    assert_close(head.weights, train_plainly(rows, training, 4))


def assert_same_bytes(one: TrainedHead, other: TrainedHead) -> None:
    assert one.curve == other.curve
    assert one.weights.keys() == other.weights.keys()
    assert all(one.weights[name].tobytes() == other.weights[name].tobytes() for name in one.weights)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_training_gives_the_same_bytes(precision):
    training = small_training(precision=precision)
    first, second = (trained(learnable_rows(500, 2), training, [1, 2]) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert_same_bytes(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", ["order", "squared_error"])
def test_heads_learn_which_images_are_hard(loss, precision):
    rows = learnable_rows(4000, 5)
    training = small_training(loss=loss, precision=precision, learning_rate=0.005)
    heads = trained(rows, training, [1, 2])
    for head in heads:
        assert order_of_unseen(head.weights) > 0.85
        assert head.curve[-1]["order_accuracy"] > 0.85 > head.curve[0]["order_accuracy"]


def test_nothing_is_learnt_where_there_is_nothing_to_learn():
    rows = learnable_rows(2000, 1)
    task_loss = np.random.default_rng(5).random((1, 2000), np.float32)
    random = CachedRows(rows.read("embedding", 0, 0, 2000)[None], task_loss)
    (head,) = trained(random, small_training(), [1])
    assert 0.4 < head.curve[-1]["order_accuracy"] < 0.6


def test_episodes_follow_the_images_and_the_schedule():
    told = []
    training = small_training(episode_samples=500, warmup_episodes=1, warmup_learning_rate=1e-5)
    heads = trained(learnable_rows(700, 2), training, [1, 2], on_episode=lambda *record: told.append(record))
    # 1,400 images are 21 batches of 64 = 1,344; an episode ends with the batch that reaches 500, 1,000, ...
    records = [record for head, record in told if head.seed == 1]
    assert [record["images"] for record in records] == [512, 1024, 1344]
    assert [record["episode"] for record in records] == [0, 1, 2]
    assert records[0]["learning_rate"] == 1e-5
    assert records[1]["learning_rate"] > records[2]["learning_rate"]
    for head in heads:
        assert list(head.curve) == [record for spec, record in told if spec.seed == head.seed]
        assert 0 <= head.curve[0]["order_accuracy"] <= 1


def test_epochs_may_exceed_what_is_cached():
    (head,) = trained(learnable_rows(128, 2), small_training(epochs=5), [1])
    assert head.curve[-1]["images"] == 640


def test_the_number_of_threads_is_set_back():
    before = torch.get_num_threads()
    trained(learnable_rows(128, 1), small_training(threads=before + 1), [1])
    assert torch.get_num_threads() == before


def test_a_warmup_longer_than_the_training_is_an_error():
    with pytest.raises(PipelineError, match=r"warmup_episodes is 25, but 640 images are only 2 episodes"):
        trained(learnable_rows(650, 1), small_training(warmup_episodes=25), [1])


def test_a_loss_that_explodes_is_an_error_that_names_the_seed():
    training = small_training(loss="squared_error", learning_rate=1e30)
    with pytest.raises(PipelineError, match=r"loss of seed 3 became (nan|inf) in episode 0"):
        trained(learnable_rows(640, 1), training, [3])


def test_not_a_number_in_the_features_is_an_error():
    embedding = np.ones((1, 640, 4), np.float16)
    embedding[0, 600, 2] = np.nan
    with pytest.raises(PipelineError, match="embedding of epoch 0, row 600"):
        trained(CachedRows(embedding, np.ones((1, 640), np.float32)), small_training(), [3])


def test_a_head_is_read_as_it_was_written_and_twice_the_same_bytes(tmp_path):
    (head,) = trained(learnable_rows(300, 1), small_training(), [6])
    for name in ("first", "second"):
        stored(tmp_path / name, head, backbone="vit")
    first, second = (artefacts.read(tmp_path / name, stage="head") for name in ("first", "second"))
    assert first.digest == second.digest
    assert set(first.files) == {"head.safetensors", "head.json", "curve.jsonl"}
    found, manifest = read_head(tmp_path / "first", {"seed": 6, "backbone": "vit"})
    assert (found.seed, found.dim, found.hidden) == (6, 8, (16, 16))
    assert found.curve == head.curve
    assert all(np.array_equal(found.weights[name], head.weights[name]) for name in head.weights)
    assert manifest.facts["dim"] == 8
    assert HeadSpec.model_validate(manifest.spec) == head_spec(6, backbone="vit")
    training = json.loads((tmp_path / "first" / "head.json").read_text())["training"]
    assert (training["batch_size"], training["loss"], training["margin"]) == (64, "order", 0.1)
    with pytest.raises(ArtefactError, match="'seed' is 6, but 7 was asked for"):
        read_head(tmp_path / "first", {"seed": 7})


def test_a_damaged_head_is_named(tmp_path):
    path = stored(tmp_path / "head", *trained(learnable_rows(300, 1), small_training(), [6])) / "head.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"head\.safetensors: damaged"):
        read_head(tmp_path / "head")


def test_the_curve_can_be_followed_while_training_runs(tmp_path):
    path = tmp_path / "live" / "curve.jsonl"
    with live_curve(path) as append:
        for episode in range(3):
            append({"episode": episode, "loss": 0.5})
            assert [json.loads(line)["episode"] for line in path.read_text().splitlines()] == list(range(episode + 1))
    assert not path.exists()
    with pytest.raises(OSError, match="full"), live_curve(path):
        raise OSError("full")
    assert not path.exists()


def test_reading_and_scoring_a_head_needs_no_torch():
    code = "import sys, pipeline_lib.heads.checkpoint, pipeline_lib.heads.numpy_head; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


MEASURE_MEMORY = r"""
import pathlib, re, sys
import numpy as np
from tests.unit.heads_world import small_training, trained

class RowsOnDisk:
    def __init__(self, path, rows):
        self.rows, self.epochs, self.dim = rows, 1, 256
        self.path = path
    def read(self, array, epoch, start, stop):
        if array == "task_loss":
            return np.arange(start, stop, dtype=np.float32)
        count, offset = (stop - start) * self.dim, start * self.dim * 2
        return np.fromfile(self.path, np.float16, count, offset=offset).reshape(-1, self.dim)

rows = RowsOnDisk(sys.argv[1], int(sys.argv[2]))
training = small_training(batch_size=512, shuffle_rows=1024, shuffle_buffer=4096, episode_samples=100000)
trained(rows, training, [1, 2])
# Not ru_maxrss: a child inherits that of the process that started it.
print(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_rows(tmp_path):
    trainings = {}
    for rows in (20_000, 200_000):
        path = tmp_path / f"{rows}.bin"
        with open(path, "wb") as file:
            file.truncate(rows * 256 * 2)
        command = [sys.executable, "-c", MEASURE_MEMORY, str(path), str(rows)]
        trainings[rows] = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    peak = {rows: int(training.communicate()[0]) for rows, training in trainings.items()}
    assert peak[200_000] / peak[20_000] == pytest.approx(1, abs=0.1)
    # The larger cache (100 MB) would show: it is more than a tenth of the peak.
    cache_size = 200_000 * 256 * 2 / 1024
    assert cache_size > 0.1 * peak[20_000]


ABLATIONS = {
    "default": small_training(),
    "leeway": small_training(leeway=0.5),
    "small": small_training(hidden=(8,)),
    "adam": small_training(optimizer="adam"),
    "sgd": small_training(optimizer="sgd"),
    "lion": small_training(optimizer="lion", learning_rate=1e-4),
    "step": small_training(schedule="step"),
    "squared": small_training(loss="squared_error"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "batch_size"), [("float32", 64), ("bfloat16", 64), ("float32", 48)])
def test_heads_in_one_pass_come_out_as_alone_to_the_last_bit_and_read_the_cache_once(precision, batch_size):
    """Several seeds of several recipes: all seeds of some, and some of others, in any order."""
    rows = learnable_rows(700, 3)
    seeds = {"default": [4, 1, 2], "leeway": [2], "squared": [2, 4], "lion": [1, 2]}
    changes = {"precision": precision, "batch_size": batch_size}
    recipes = {name: training.model_copy(update=changes) for name, training in ABLATIONS.items()}
    specs = [
        head_spec(seed, training, variant=name)
        for name, training in recipes.items()
        for seed in seeds.get(name, [1, 4])
    ]
    together = dict(zip(specs, train_heads(rows, specs), strict=True))
    reads = len(rows.reads)
    for spec, head in together.items():
        rows.reads.clear()
        (alone,) = train_heads(rows, [spec])
        assert head.seed == spec.seed
        assert_same_bytes(head, alone)
        assert len(rows.reads) == reads
    weights = {spec.variant: head.weights["layers.0.weight"] for spec, head in together.items() if spec.seed in (1, 2)}
    for name in ABLATIONS.keys() - {"default"}:
        default = together[head_spec(2 if name in seeds else 1, recipes["default"])].weights["layers.0.weight"]
        assert weights[name].shape != default.shape or np.abs(weights[name] - default).max() > 1e-4, name


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lion"])
def test_every_optimiser_learns_the_order(optimizer):
    training = small_training(optimizer=optimizer, learning_rate=1e-3 if optimizer == "lion" else 0.01)
    (head,) = trained(learnable_rows(2000, 5), training, [0])
    assert order_of_unseen(head.weights) > 0.7


def test_a_head_that_starts_at_zero_stays_constant_as_in_table_3():
    (head,) = trained(learnable_rows(700, 3), small_training(initialisation="zero"), [0])
    assert all(not weights.any() for name, weights in head.weights.items() if name.endswith("weight"))


def test_recipes_that_read_the_cache_differently_are_refused():
    specs = [head_spec(variant=name, training=small_training(batch_size=size)) for name, size in (("a", 64), ("b", 32))]
    with pytest.raises(PipelineError, match=r"training.batch_size is 64 in 'a' but 32 in 'b'"):
        train_heads(learnable_rows(700, 1), specs)
