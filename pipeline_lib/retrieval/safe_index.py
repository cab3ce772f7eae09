"""Safe retrieval as an object: an index that refuses uncertain queries and leaves out uncertain items.

    index = SafeIndex(dim=384, query_share=0.1, item_share=0.1)
    index.add(ids, representation, uncertainty)
    found = index.search(query_representation, query_uncertainty, k=5)
    found.ids, found.similarity, found.is_rejected, found.reason(0)

A share r stands for the threshold that leaves out the floor(r m) most uncertain of m reference images: the largest
u of those that are kept. What is above is left out; images that share the threshold's value stay, so ties leave
out fewer. An item's references are all items of the index. A query's are the same, or a sample of uncertainties of
its own. A share of 0 sets no threshold.

The representations are kept here, faiss holds a copy of those that are not left out. So any factory string allows
items to be removed, an index is saved without faiss's own format, and its copy is built anew by the first search after
a change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file, save_file

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.retrieval.cosine_index import CosineIndex, faiss_index

STAGE = "safe_index"
ITEMS = "items.safetensors"
NO_ITEM = -1


@dataclass(frozen=True)
class Found:
    """What a search of n queries for k items found.

    ids: int64 [n, k], nearest first; -1 where there is none: in every place of a rejected query.
    similarity: cosine, float64 [n, k]; NaN where there is none.
    is_rejected: bool [n]. uncertainty: of the queries, float64 [n].
    threshold: the largest u that is accepted. share: of `references` images, which is above it.
    """

    ids: np.ndarray
    similarity: np.ndarray
    is_rejected: np.ndarray
    uncertainty: np.ndarray
    threshold: float
    share: float
    references: int

    def reason(self, query: int) -> str | None:
        """Return one line that says why a query (its position) was rejected; None for one that was answered."""
        if not self.is_rejected[query]:
            return None
        return (
            f"uncertainty {self.uncertainty[query]:.6g} is above {self.threshold:.6g}, like that of the "
            f"{100 * self.share:g} % most uncertain of {self.references:,} reference images"
        )


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
    query_share, item_share
        Shares of the most uncertain queries to reject and items to leave out, in [0, 1); can be set at any time.
    reference
        Uncertainties, float [m], whose quantiles are the thresholds of queries; None = those of the items.

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
        query_share: float = 0.0,
        item_share: float = 0.0,
        reference: np.ndarray | None = None,
    ) -> None:
        if dim < 1:
            raise PipelineError(f"dim is {dim}, but must be at least 1: the length of a representation")
        self.dim, self.factory, self.parameters = dim, factory, parameters
        self._query_share = _checked_share("query_share", query_share)
        self._item_share = _checked_share("item_share", item_share)
        self._reference = None if reference is None else _checked_floats("uncertainties", reference, np.float64, None)
        self._ids = np.empty(0, np.int64)
        self._values = np.empty((0, dim), np.float32)
        self._uncertainty = np.empty(0, np.float64)
        self._built: tuple[CosineIndex, np.ndarray] | None = None
        faiss_index(dim, factory, parameters)  # a wrong factory string is told now, not by the first search

    def __len__(self) -> int:
        """Return how many items there are, also those that are left out at present."""
        return len(self._ids)

    @property
    def ids(self) -> np.ndarray:
        """The ids of all items in the order in which they were added, int64 [n]."""
        return self._ids.copy()

    @property
    def query_share(self) -> float:
        """Share of the most uncertain queries that are rejected."""
        return self._query_share

    @query_share.setter
    def query_share(self, share: float) -> None:
        self._query_share = _checked_share("query_share", share)

    @property
    def item_share(self) -> float:
        """Share of the most uncertain items that are left out."""
        return self._item_share

    @item_share.setter
    def item_share(self, share: float) -> None:
        self._item_share = _checked_share("item_share", share)
        self._built = None

    @property
    def query_threshold(self) -> float:
        """The largest uncertainty of a query that is answered; infinite with a share of 0."""
        return share_threshold(self._references, self._query_share)

    @property
    def left_out(self) -> np.ndarray:
        """The ids of the items that are left out, int64 [m], in the order in which they were added."""
        return self._ids[~self._is_kept]

    def add(self, ids: np.ndarray, representation: np.ndarray, uncertainty: np.ndarray) -> None:
        """Add items, or none of them when one can't be.

        Parameters
        ----------
        ids
            int64 [n], not negative.
        representation, uncertainty
            float [n, dim], kept as float32, and float [n].
        """
        ids = _checked_ids(ids)
        values = _checked_floats("representations", representation, np.float32, len(ids), self.dim)
        uncertainty = _checked_floats("uncertainties", uncertainty, np.float64, len(ids))
        together = np.concatenate([self._ids, ids])
        distinct, counts = np.unique(together, return_counts=True)
        if len(distinct) < len(together):
            raise PipelineError(
                f"id {distinct[counts > 1][0]} would be there twice; remove it first, or use another id"
            )
        if (ids < 0).any():
            raise PipelineError(f"id {ids.min()} is negative; ids must be 0 or larger, since {NO_ITEM} means no item")
        self._ids = together
        self._values = np.concatenate([self._values, values])
        self._uncertainty = np.concatenate([self._uncertainty, uncertainty])
        self._built = None

    def remove(self, ids: np.ndarray) -> None:
        """Remove items by their ids, int64 [n]; nothing is removed when any id is not there."""
        ids = _checked_ids(ids)
        unknown = ids[~np.isin(ids, self._ids)]
        if len(unknown):
            raise PipelineError(f"id {unknown[0]} is not in the index of {len(self)} items ({len(unknown)} such ids)")
        stays = ~np.isin(self._ids, ids)
        self._ids, self._values, self._uncertainty = self._ids[stays], self._values[stays], self._uncertainty[stays]
        self._built = None

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
        if not len(self):
            raise PipelineError("the index is empty; add items before searching")
        queries = _checked_floats("representations", representation, np.float32, None, self.dim)
        uncertainty = _checked_floats("uncertainties", uncertainty, np.float64, len(queries))
        if own_ids is not None and np.shape(own_ids) != (len(queries),):
            raise PipelineError(f"own_ids has shape {np.shape(own_ids)}, but there are {len(queries)} queries")
        if self._built is None:
            # The rows of the items that are not left out, in faiss's order.
            rows = np.flatnonzero(self._is_kept)
            self._built = CosineIndex(self._values[rows], self.factory, self.parameters), rows
        index, rows = self._built
        threshold = self.query_threshold
        is_rejected = uncertainty > threshold
        answered = np.flatnonzero(~is_rejected)
        own_rows = np.full(len(answered), NO_ITEM)
        if own_ids is not None:
            own = np.asarray(own_ids)[answered]
            by_id = np.argsort(self._ids[rows])
            position = by_id[np.searchsorted(self._ids[rows], own, sorter=by_id).clip(max=len(rows) - 1)]
            own_rows = np.where(self._ids[rows[position]] == own, position, NO_ITEM)
        ids = np.full((len(queries), k), NO_ITEM, np.int64)
        similarity = np.full((len(queries), k), np.nan)
        nearest = index.search(queries[answered], k, own_rows)
        is_there = nearest.index >= 0
        ids[answered] = np.where(is_there, self._ids[rows[nearest.index]], NO_ITEM)
        similarity[answered] = np.where(is_there, nearest.similarity, np.nan)
        return Found(ids, similarity, is_rejected, uncertainty, threshold, self._query_share, len(self._references))

    def save(self, directory: Path) -> None:
        """Write the index as an artefact: its items as safetensors, and a manifest with settings and checksums."""
        spec = {
            "dim": self.dim,
            "factory": self.factory,
            "parameters": self.parameters,
            "query_share": self._query_share,
            "item_share": self._item_share,
        }
        arrays: dict[str, np.ndarray] = {"ids": self._ids, "representation": self._values}
        arrays["uncertainty"] = self._uncertainty
        if self._reference is not None:
            arrays["reference"] = self._reference
        with artefacts.writing(directory, STAGE, spec) as draft:
            save_file(arrays, draft.path / ITEMS)
            draft.facts.update(items=len(self), software=artefacts.software_versions("faiss-cpu"))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a saved index; raises `ArtefactError` naming the file that is missing or damaged."""
        manifest = artefacts.read(directory, STAGE, remedy="save the index again")
        arrays = load_file(Path(directory) / ITEMS)
        index = cls(**manifest.spec, reference=arrays.get("reference"))
        index.add(arrays["ids"], arrays["representation"], arrays["uncertainty"])
        return index

    @property
    def _references(self) -> np.ndarray:
        return self._uncertainty if self._reference is None else self._reference

    @property
    def _is_kept(self) -> np.ndarray:
        return self._uncertainty <= share_threshold(self._uncertainty, self._item_share)


def share_threshold(uncertainty: np.ndarray, share: float) -> float:
    """Return the largest u that is kept when the floor(share m) largest of u, float [m], are left out.

    Infinite where that is none of them: then nothing is known of what would be too uncertain.
    """
    # 0.29 * 100 is a little less than 29, which must not cost an image.
    count = math.floor(share * len(uncertainty) + 1e-9)
    if count == 0:
        return math.inf
    kept = len(uncertainty) - count
    return float(np.partition(uncertainty, kept - 1)[kept - 1])


def _checked_share(name: str, share: float) -> float:
    if not 0 <= share < 1:
        raise PipelineError(f"{name} is {share}, but must be at least 0 and less than 1")
    return float(share)


def _checked_ids(ids: np.ndarray) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise PipelineError(f"ids have type {ids.dtype} and shape {ids.shape}, but must be whole numbers, one per item")
    return ids.astype(np.int64)


def _checked_floats(what: str, values: np.ndarray, dtype: type, rows: int | None, dim: int | None = None) -> np.ndarray:
    """Return finite values, [n] or [n, dim]; rows: how many they must be, None = any number."""
    values = np.asarray(values, dtype)
    width = () if dim is None else (dim,)
    if values.ndim != 1 + len(width) or values.shape[1:] != width or rows not in (None, len(values)):
        wanted = ", ".join(map(str, ("n" if rows is None else rows, *width)))
        raise PipelineError(f"the {what} have shape {values.shape}, but must be [{wanted}]")
    is_finite = np.isfinite(values) if dim is None else np.isfinite(values).all(axis=1)
    if not is_finite.all():
        raise PipelineError(f"row {int(np.argmin(is_finite))} of the {what} holds NaN or infinity; check their source")
    return values
