"""The model hub: the files of a repository that an engine here can use, and nothing else of it."""

import logging
import sys
from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from penstock.errors import MissingDependency

logger = logging.getLogger(__name__)

FILES = [
    "*.json",
    "model.safetensors",
    "*_Pooling/config.json",
    "openvino/openvino_model.xml",
    "openvino/openvino_model.bin",
]


def fetch(name: str, *, download: bool = True) -> Path:
    """The folder of a repository's files, downloaded unless they are cached already.

    A terminal gets a progress bar. Raises MissingDependency, which says why and how else to get them.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        if not download:
            raise MissingDependency(
                f"The model {name!r} is not installed and downloads are switched off (models.download). "
                f"Put its files into a folder and name that folder as the model."
            ) from None
    except HFValidationError as error:
        raise MissingDependency(f"There is no model {name!r}: it is neither a folder nor a repository name.") from error
    logger.info("downloading the model %s", name)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise MissingDependency(
            f"The model hub has no model {name!r} for you: check the name, or set HF_TOKEN when it is private or gated."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        raise MissingDependency(
            f"The model {name!r} is not installed and could not be downloaded ({type(error).__name__}). Try again when "
            f"the model hub can be reached, or put its files into a folder and name that folder as the model."
        ) from error
