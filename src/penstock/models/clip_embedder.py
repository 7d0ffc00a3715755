"""A CLIP model in this process as an ImageEmbedder: one batcher for texts, one for images."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self

import numpy as np

from penstock.models.base import ImageEmbedder, Lane, Vectors
from penstock.models.batcher import Batcher
from penstock.models.clip_load import LoadedClip
from penstock.models.embedder import Executors, LocalEmbedder
from penstock.models.image_prepare import prepare
from penstock.models.lane import Call
from penstock.models.metrics import ModelMetrics
from penstock.models.options import ModelsOptions

GROUP = 8
"""Images prepared and queued at once, so that calls take turns."""

WAITING_IMAGES = 64
"""Pixels take memory: about 150 kB an image."""

DECODERS = 2
"""Threads of a model that read and shrink image files."""


class ClipEmbedder(LocalEmbedder, ImageEmbedder):
    """Both towers of one loaded model. An async context manager: leaving it stops the engines."""

    def __init__(
        self,
        loaded: LoadedClip,
        *,
        max_pixels: int,
        executors: Executors,
        options: ModelsOptions,
        metrics: ModelMetrics,
    ) -> None:
        super().__init__(loaded.texts, executors=executors, options=options, metrics=metrics)
        self._recipe = loaded.recipe
        self._max_pixels = max_pixels
        self._images = Batcher(
            loaded.images.encoder,
            name=f"{loaded.texts.info.name} images",
            longest=loaded.recipe.vision.tokens,
            options=loaded.images.batcher(options.batcher).model_copy(
                update={"queue_tokens": WAITING_IMAGES * loaded.recipe.vision.tokens}
            ),
            metrics=metrics,
            cost=loaded.image_cost,
            spare=loaded.images.spare,
        )

    async def __aenter__(self) -> Self:
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="image-decode")
        await super().__aenter__()
        await self._images.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._images.__aexit__(*exc)
        await super().__aexit__(*exc)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    @property
    def closed(self) -> bool:
        return super().closed or self._images.closed

    async def embed_images(self, images: Sequence[bytes], *, lane: Lane = Lane.INTERACTIVE) -> Vectors:
        if not images:
            return np.empty((0, self.info.dimensions), np.float32)
        loop, make = (
            asyncio.get_running_loop(),
            partial(prepare, recipe=self._recipe.images, max_pixels=self._max_pixels),
        )
        calls: list[Call] = []
        try:
            for start in range(0, len(images), GROUP):
                group = images[start : start + GROUP]
                pixels = await asyncio.gather(*(loop.run_in_executor(self._decoders, make, data) for data in group))
                calls.append(await self._images.put(pixels, lane))
            for call in calls:
                await call.done
        except BaseException:
            for call in calls:
                self._images.forget(call)
            raise
        return np.concatenate([call.result for call in calls])
