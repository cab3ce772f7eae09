"""Safe retrieval as an object: an index that refuses doubtful queries and leaves out uncertain items.

    index = SafeIndex(dim=384, query_share=0.1, item_share=0.1)
    index.add(ids, representation, uncertainty)
    found = index.search(query_representation, query_uncertainty, k=5)
    found.ids, found.similarity, found.is_rejected, found.reason(0)

Queries are rejected by a signal: their uncertainty, their distance to the nearest item, or both together (see
`pipeline_lib.retrieval.signals`). Items are left out by their uncertainty.

A share r stands for the threshold that leaves out the floor(r m) largest of m reference images: the largest value of
those that are kept. What is above is left out; images that share the threshold's value stay, so ties leave out fewer.
An item's references are all items of the index. A query's are the same (at most 10,000, evenly spread), which don't
find themselves, or a sample of queries. A share of 0 sets no threshold. Where items have labels, each class has a
threshold of its own, for the queries whose nearest item is of this class: else a class that is hard throughout would be
left out as a whole, and nothing of the others.

The representations are kept here, faiss holds a copy of those that are not left out. So any factory string allows
items to be removed, an index is saved without faiss's own format, and its copy is built anew by the first search after
a change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file, save_file

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError, one_of
from pipeline_lib.core.software import software_behind
from pipeline_lib.retrieval.checks import checked_floats, checked_integers, checked_share
from pipeline_lib.retrieval.cosine_index import faiss_index
from pipeline_lib.retrieval.found import NO_ITEM, Found
from pipeline_lib.retrieval.items import Items, Kept, distance_of, share_threshold
from pipeline_lib.retrieval.signals import SIGNALS, Signal

STAGE = "safe_index"
ITEMS = "items.safetensors"


class SafeIndex:
    """Representations, each with an id and an uncertainty, to be searched by cosine similarity.

    Parameters
    ----------
    dim
        Length of a representation.
    factory
        faiss's factory string of the index: `Flat`, `IVF256,Flat`, `HNSW32` ...; one that must be trained is trained
        on the items that are not left out.
    parameters
        faiss's parameters of the search, such as `nprobe=16`.
    signal
        What queries are rejected by: `both`, `distance` or `uncertainty`.
    query_share, item_share
        Shares of queries to reject and of the most uncertain items to leave out, in [0, 1); can be set at any time.
    reference
        Representations [m, dim] and uncertainties [m] of a sample of queries, whose quantiles are the thresholds of
        queries; None = the items.

    Raises
    ------
    PipelineError
        By every method, for what can't be: shapes that don't fit, NaN or infinity, a share outside of [0, 1), an id
        that is there twice or not at all, a factory or parameters that faiss refuses.
    """

    def __init__(
        self,
        dim: int,
        factory: str = "Flat",
        parameters: str = "",
        signal: Signal = "both",
        query_share: float = 0.0,
        item_share: float = 0.0,
        reference: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        if dim < 1:
            raise PipelineError(f"dim is {dim}, but must be at least 1: the length of a representation")
        if signal not in SIGNALS:
            raise PipelineError(f"signal '{signal}' is unknown; allowed: {one_of(SIGNALS)}")
        self.dim, self.factory, self.parameters = dim, factory, parameters
        self.signal: Signal = signal
        self._query_share = checked_share("query_share", query_share)
        self._item_share = checked_share("item_share", item_share)
        self._reference = None
        if reference is not None:
            values = checked_floats("representations of the reference", reference[0], np.float32, None, dim)
            of_values = checked_floats("uncertainties of the reference", reference[1], np.float64, len(values))
            self._reference = values, of_values
        self._items = Items.none(dim)
        self._thresholds: dict[int, float] | None = None  # that were set, by class
        self._kept: Kept | None = None  # until the items change
        faiss_index(dim, factory, parameters)  # a wrong factory string is told now, not by the first search

    def __len__(self) -> int:
        """Return how many items there are, also those that are left out at present."""
        return len(self._items.ids)

    @property
    def ids(self) -> np.ndarray:
        """The ids of all items in the order in which they were added, int64 [n]."""
        return self._items.ids.copy()

    @property
    def query_share(self) -> float:
        """Share of queries that are rejected; setting it undoes a threshold that was set."""
        return self._query_share

    @query_share.setter
    def query_share(self, share: float) -> None:
        self._query_share, self._thresholds = checked_share("query_share", share), None

    @property
    def item_share(self) -> float:
        """Share of the most uncertain items that are left out."""
        return self._item_share

    @item_share.setter
    def item_share(self, share: float) -> None:
        self._item_share = checked_share("item_share", share)
        self._kept = None

    @property
    def query_thresholds(self) -> dict[int, float]:
        """By class of the nearest item (0 where items have no labels), the largest signal that is answered.

        Infinite where all are. Can be set, to numbers by class or one for all: from `learn_then_test`, say, on what
        `signal_of` returns of labelled queries. Then it holds, also for other items, until `query_share` is set.
        """
        if self._thresholds is not None:
            return dict(self._thresholds)
        kept = self._searched()
        return {
            label: share_threshold(kept.reference[kept.reference_label == label], self._query_share)
            for label in np.unique(self._items.label).tolist()
        }

    @query_thresholds.setter
    def query_thresholds(self, thresholds: float | Mapping[int, float]) -> None:
        labels = np.unique(self._items.label).tolist()
        given = thresholds if isinstance(thresholds, Mapping) else dict.fromkeys(labels, thresholds)
        missing = [label for label in labels if math.isnan(given.get(label, math.nan))]
        if missing:
            raise PipelineError(f"query_thresholds has no number for class {missing[0]}; give one for each class")
        self._thresholds = {label: float(value) for label, value in given.items()}

    @property
    def references(self) -> np.ndarray:
        """The signal of the reference images, float64 [m], whose quantiles are candidates for a threshold."""
        return self._searched().reference.copy()

    @property
    def left_out(self) -> np.ndarray:
        """The ids of the items that are left out, int64 [m], in the order in which they were added."""
        return self._items.ids[~self._is_kept]

    def add(
        self, ids: np.ndarray, representation: np.ndarray, uncertainty: np.ndarray, label: np.ndarray | None = None
    ) -> None:
        """Add items, or none of them when one can't be.

        Parameters
        ----------
        ids
            int64 [n], not negative.
        representation, uncertainty
            float [n, dim], kept as float32, and float [n].
        label
            Their classes, int64 [n], where classes are to have thresholds of their own; None = all are of class 0.
        """
        ids = checked_integers("ids", ids)
        values = checked_floats("representations", representation, np.float32, len(ids), self.dim)
        uncertainty = checked_floats("uncertainties", uncertainty, np.float64, len(ids))
        label = np.zeros(len(ids), np.int64) if label is None else checked_integers("labels", label, len(ids))
        together = np.concatenate([self._items.ids, ids])
        distinct, counts = np.unique(together, return_counts=True)
        if len(distinct) < len(together):
            raise PipelineError(
                f"id {distinct[counts > 1][0]} would be there twice; remove it first, or use another id"
            )
        if (ids < 0).any():
            raise PipelineError(f"id {ids.min()} is negative; ids must be 0 or larger, since {NO_ITEM} means no item")
        self._items, self._kept = self._items.followed_by(Items(ids, values, uncertainty, label)), None

    def remove(self, ids: np.ndarray) -> None:
        """Remove items by their ids, int64 [n]; nothing is removed when any id is not there."""
        ids = checked_integers("ids", ids)
        unknown = ids[~np.isin(ids, self._items.ids)]
        if len(unknown):
            raise PipelineError(f"id {unknown[0]} is not in the index of {len(self)} items ({len(unknown)} such ids)")
        self._items, self._kept = self._items[~np.isin(self._items.ids, ids)], None

    def search(
        self, representation: np.ndarray, uncertainty: np.ndarray, k: int = 1, own_ids: np.ndarray | None = None
    ) -> Found:
        """Find the k nearest items of each query that is not rejected.

        Parameters
        ----------
        representation, uncertainty
            float [n, dim] and float [n].
        k
            How many items.
        own_ids
            For queries that are items themselves, the id that each must not find, int64 [n].
        """
        if k < 1:
            raise PipelineError(f"k is {k}, but at least 1 item must be asked for")
        queries = checked_floats("representations", representation, np.float32, None, self.dim)
        uncertainty = checked_floats("uncertainties", uncertainty, np.float64, len(queries))
        if own_ids is not None and np.shape(own_ids) != (len(queries),):
            raise PipelineError(f"own_ids has shape {np.shape(own_ids)}, but there are {len(queries)} queries")
        kept = self._searched()
        nearest = kept.nearest(queries, k, own_ids)
        distance, label = distance_of(nearest), kept.items.label[nearest.index[:, 0]]
        value, thresholds = kept.signal(distance, uncertainty), self.query_thresholds
        # A class that came after thresholds were set is not answered for.
        threshold = np.array([thresholds.get(own, -math.inf) for own in label.tolist()])
        is_rejected = value > threshold
        is_found = (nearest.index >= 0) & ~is_rejected[:, None]
        return Found(
            ids=np.where(is_found, kept.items.ids[nearest.index], NO_ITEM),
            similarity=np.where(is_found, nearest.similarity, np.nan),
            is_rejected=is_rejected,
            uncertainty=uncertainty,
            distance=distance,
            signal=self.signal,
            value=value,
            threshold=threshold,
            share=self._query_share if self._thresholds is None else None,
            references=np.array([np.count_nonzero(kept.reference_label == own) for own in label.tolist()], np.int64),
            label=label if len(thresholds) > 1 else None,
        )

    def signal_of(
        self, representation: np.ndarray, uncertainty: np.ndarray, own_ids: np.ndarray | None = None
    ) -> np.ndarray:
        """Return what queries are rejected by, float64 [n], to calibrate or to set thresholds on. As `search`."""
        return self.search(representation, uncertainty, 1, own_ids).value

    def save(self, directory: Path) -> None:
        """Write the index as an artefact: its items as safetensors, and a manifest with settings and checksums."""
        spec = {
            "dim": self.dim,
            "factory": self.factory,
            "parameters": self.parameters,
            "signal": self.signal,
            "query_share": self._query_share,
            "item_share": self._item_share,
        }
        arrays: dict[str, np.ndarray] = dict(vars(self._items))
        if self._reference is not None:
            arrays["reference_representation"], arrays["reference_uncertainty"] = self._reference
        if self._thresholds is not None:
            arrays["threshold_label"] = np.array(list(self._thresholds), np.int64)
            arrays["threshold"] = np.array(list(self._thresholds.values()), np.float64)
        software = software_behind(("retrieval.safe_index",))
        with artefacts.writing(directory, STAGE, spec, software=software) as draft:
            save_file(arrays, draft.path / ITEMS)
            draft.facts["items"] = len(self)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a saved index; raises `ArtefactError` naming the file that is missing or damaged."""
        manifest = artefacts.read(directory, STAGE, remedy="save the index again")
        arrays = load_file(Path(directory) / ITEMS)
        reference = None
        if "reference_uncertainty" in arrays:
            reference = arrays["reference_representation"], arrays["reference_uncertainty"]
        index = cls(**manifest.spec, reference=reference)
        index.add(arrays["ids"], arrays["representation"], arrays["uncertainty"], arrays["label"])
        if "threshold" in arrays:
            index._thresholds = dict(zip(arrays["threshold_label"].tolist(), arrays["threshold"].tolist(), strict=True))
        return index

    def _searched(self) -> Kept:
        if not len(self):
            raise PipelineError("the index is empty; add items before searching")
        if self._kept is None:
            reference = self._items
            if self._reference is not None:
                values, uncertainty = self._reference
                nobody = np.full(len(values), NO_ITEM)
                reference = Items(nobody, values, uncertainty, nobody)
            self._kept = Kept(self._items[self._is_kept], reference, self.signal, self.factory, self.parameters)
        return self._kept

    @property
    def _is_kept(self) -> np.ndarray:
        uncertainty = self._items.uncertainty
        return uncertainty <= share_threshold(uncertainty, self._item_share)
