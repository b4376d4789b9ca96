"""What a country's file may say about Earth Engine: what the source and its exports both read."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from popcorn_ml.edges import ServiceAddress


class Settings(BaseModel):
    """What a country's file may say under `earthengine`. Credentials are not settings.

    Attributes:
        mode: "tiles", or "export" through a bucket.
        cloud_mask: "probability" with scene classes where a scene has none, or "scl" for scene
            classes throughout (the mask of the STAC source).
        max_cloud_probability: pixels count as clear below this (per cent).
        parallel: requests at the same time; a project may have 40 and has other uses too.
        retries, first_wait_s: repetitions after quota answers, server errors, cut connections.
        bucket, prefix: where exports go; needed for "export".
        poll_s: how often a running export is asked about.
        file_px: side of the files that an export is cut into.
        url, storage_url: other addresses of the services.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    HOW_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"mode", "parallel", "retries", "first_wait_s", "bucket", "prefix", "poll_s", "file_px",
         "storage_url"}
    )  # fmt: skip

    mode: Literal["tiles", "export"] = "tiles"
    cloud_mask: Literal["probability", "scl"] = "probability"
    max_cloud_probability: int = Field(default=65, ge=1, le=100)
    parallel: int = Field(default=20, ge=1, le=40)
    retries: int = Field(default=8, ge=0, le=12)
    first_wait_s: float = Field(default=1.0, gt=0)
    bucket: str | None = None
    prefix: str = "popcorn"
    poll_s: float = Field(default=30.0, gt=0)
    file_px: int = Field(default=8192, ge=256, multiple_of=256)
    url: ServiceAddress | None = None
    storage_url: ServiceAddress | None = None

    @model_validator(mode="after")
    def _bucket_for_export(self) -> Settings:
        if self.mode == "export" and not self.bucket:
            raise ValueError("mode: export needs a bucket")
        return self
