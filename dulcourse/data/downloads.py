"""Files of published data sets: downloaded once, known by their SHA-256, kept in one folder.

The folder is the one that the environment variable DULCOURSE_DATA names, else the user's cache.
"""

import logging
import os
from pathlib import Path

from dulcourse.errors import UsageError

__all__ = ["fetch", "folder"]


def folder(name: str) -> Path:
    """Where the files of data set `name` are kept."""
    import pooch

    return Path(os.environ.get("DULCOURSE_DATA") or pooch.os_cache("dulcourse")) / name


def fetch(name: str, file: str, *, url: str, sha256: str) -> Path:
    """The file of data set `name`, downloaded from `url` unless it is there already and unaltered."""
    import pooch  # imports an HTTP client, so only when a published data set is asked for

    pooch.get_logger().setLevel(logging.WARNING)
    place = folder(name)
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname=file, path=place, progressbar=True))
    except (OSError, ValueError) as error:  # no network; another file than the published one
        raise UsageError(
            f"{name} needs the file {file} in {place}, which is missing there or not the published one, and "
            f"it cannot be downloaded ({type(error).__name__}): get it from {url} on another machine and "
            "put it into that folder (DULCOURSE_DATA names another one)."
        ) from error
