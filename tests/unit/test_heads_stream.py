from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.heads.stream import shuffled_buffers
from tests.unit.heads_world import CachedRows, numbered_rows


def batches_of(rows, seeds, epochs=1, batch_size=4, shuffle_rows=3, shuffle_buffer=10) -> np.ndarray:
    """Return the task losses (numbers of the rows) of every batch, [batches, S, B]."""
    batches = []
    for buffer in shuffled_buffers(rows, epochs, batch_size, shuffle_rows, shuffle_buffer, seeds):
        assert sum(len(segment) for segment in buffer.segments) == len(buffer.task_loss)
        assert {segment.shape[1] for segment in buffer.segments} == {rows.dim}
        shuffled = buffer.task_loss[buffer.orders]
        batches += np.split(shuffled, shuffled.shape[1] // batch_size, axis=1)
    return np.stack(batches)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    epochs=st.integers(1, 4),
    half_batch=st.integers(1, 4),
    shuffle_rows=st.integers(1, 50),
    shuffle_buffer=st.integers(2, 60),
)
def test_each_row_of_each_epoch_is_used_once_but_for_the_last_batch(
    rows, epochs, half_batch, shuffle_rows, shuffle_buffer
):
    batch_size = 2 * half_batch
    if rows * epochs < batch_size:
        return
    cached = numbered_rows(rows, epochs)
    batches = batches_of(cached, [7, 8], epochs, batch_size, shuffle_rows, shuffle_buffer)
    assert len(batches) == rows * epochs // batch_size
    for head in range(2):
        seen = batches[:, head].ravel()
        assert len(set(seen.tolist())) == len(seen)
        missing = set(range(rows * epochs)) - set(seen.astype(int).tolist())
        assert len(missing) == rows * epochs % batch_size
        assert all(number >= rows * (epochs - 1) - batch_size for number in missing)


def test_embedding_and_task_loss_stay_together():
    cached = numbered_rows(30, 2)
    for buffer in shuffled_buffers(cached, 2, 4, 7, 16, [1]):
        embedding = np.concatenate(buffer.segments)
        np.testing.assert_array_equal(embedding[:, 0] * 30 + embedding[:, 1], buffer.task_loss)


@given(st.lists(st.integers(1, 20), max_size=5))
@settings(max_examples=20, deadline=None)
def test_batches_do_not_depend_on_how_the_cache_is_cut(block_sizes):
    cut = [size for i, size in enumerate(block_sizes) if sum(block_sizes[: i + 1]) < 37]
    np.testing.assert_array_equal(
        batches_of(numbered_rows(37, 2), [1, 2], 2), batches_of(numbered_rows(37, 2, cut), [1, 2], 2)
    )


def test_a_seed_sees_the_same_batches_alone_and_in_a_stack():
    stacked = batches_of(numbered_rows(50, 2), [5, 3, 9], 2)
    for head, seed in enumerate([5, 3, 9]):
        np.testing.assert_array_equal(stacked[:, [head]], batches_of(numbered_rows(50, 2), [seed], 2))
    assert (stacked[:, 0] != stacked[:, 1]).any()


def test_a_stack_reads_the_cache_once():
    alone, stacked = numbered_rows(50, 1), numbered_rows(50, 1)
    batches_of(alone, [1], batch_size=10)
    batches_of(stacked, [1, 2, 3, 4, 5], batch_size=10)
    assert stacked.reads == alone.reads
    rows_read = sum(stop - start for array, _, start, stop in alone.reads if array == "task_loss")
    assert rows_read == 50


def test_what_does_not_fill_a_batch_is_carried_into_the_next_epoch():
    # Ten rows in batches of four: the third batch has the last two rows of epoch 0 and two of epoch 1.
    batches = batches_of(numbered_rows(10, 2), [1], epochs=2, batch_size=4, shuffle_buffer=4)
    assert sorted((batches[2].ravel() >= 10).tolist()) == [False, False, True, True]


def test_more_epochs_than_are_cached_start_over_in_another_order():
    batches = batches_of(numbered_rows(40, 2), [1], epochs=4, batch_size=40, shuffle_buffer=40)
    assert [sorted(batch.ravel().tolist()) for batch in batches[:2]] == [
        sorted(batch.ravel().tolist()) for batch in batches[2:]
    ]
    assert (batches[0] != batches[2]).any()


def test_rows_are_shuffled_within_the_buffer_and_segments_within_the_epoch():
    batches = batches_of(numbered_rows(2000, 1), [1], batch_size=100, shuffle_rows=20, shuffle_buffer=500)
    first_buffer = batches[:5].ravel()
    assert np.abs(np.corrcoef(first_buffer, np.arange(500))[0, 1]) < 0.2
    assert first_buffer.min() < 400 and first_buffer.max() > 1600


def test_fewer_rows_than_a_batch_are_named():
    with pytest.raises(PipelineError, match=r"batch_size is 64, but 2 epochs of 10 images are 20"):
        batches_of(numbered_rows(10, 2), [1], epochs=2, batch_size=64)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("array", ["embedding", "task_loss"])
def test_a_value_that_is_not_finite_is_named_with_its_epoch_and_row(dtype, value, array):
    embedding, task_loss = np.ones((2, 30, 5), dtype), np.ones((2, 30), np.float32)
    embedding[0, 0] = -np.finfo(dtype).max
    embedding[0, 1] = np.finfo(dtype).max
    if array == "embedding":
        embedding[1, 17, 3] = value
    else:
        task_loss[1, 17] = value
    with pytest.raises(PipelineError, match=rf"{array} of epoch 1, row 17 is NaN or infinite"):
        batches_of(CachedRows(embedding, task_loss), [1], epochs=2)


class FaultyRows(CachedRows):
    def read(self, array, epoch, start, stop):
        if len(self.reads) > 8:
            raise OSError("the disk is gone")
        return super().read(array, epoch, start, stop)


def test_an_error_while_reading_surfaces_where_batches_are_used():
    with pytest.raises(OSError, match="the disk is gone"):
        batches_of(FaultyRows(np.ones((1, 100, 2), np.float32), np.ones((1, 100), np.float32)), [1])


class SlowRows(CachedRows):
    def read(self, array, epoch, start, stop):
        time.sleep(0.002)
        return super().read(array, epoch, start, stop)


def test_the_reading_thread_stops_when_the_consumer_does():
    rows = SlowRows(np.ones((1, 1000, 2), np.float32), np.ones((1, 1000), np.float32))
    with contextlib.closing(shuffled_buffers(rows, 1, 10, 1, 300, [1])) as buffers:
        next(buffers)
        start = time.monotonic()
    # A whole buffer would take 300 reads of two arrays, at least 1.2 seconds.
    assert time.monotonic() - start < 0.6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feature-reader")]
