"""Where things are kept on this machine: downloads and encoded texts, and a local broker's data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """What can be fetched or computed again: `EDDYLINE_CACHE`, else the user's cache folder."""
    return Path(environ.get("EDDYLINE_CACHE") or platformdirs.user_cache_dir("eddyline"))


def state_folder() -> Path:
    """What a local broker keeps between runs."""
    return Path(platformdirs.user_state_dir("eddyline"))
