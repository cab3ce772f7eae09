"""`dask`: where caches larger than memory are worked through; it changes no result, so it makes nothing stale."""

from __future__ import annotations

from pydantic import Field

from pipeline_lib.config.section import Section

SCHEDULER_PATTERN = r"^(threads|processes|(tcp|tls)://[^\s'\"]+)$"


class Dask(Section):
    """The scheduler of feature statistics; the commands `verify` and `score_features` have an option of their own."""

    scheduler: str | None = Field(
        None,
        pattern=SCHEDULER_PATTERN,
        description="threads, processes, or the address of a dask.distributed scheduler such as tcp://host:8786; "
        "null = the environment's DASK_SCHEDULER_ADDRESS, or threads.",
    )
