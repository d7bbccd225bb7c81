"""The real data sets, where they are: not in the repository, because most of them may not be passed on."""

import os
from functools import cache
from pathlib import Path

import pytest

from lora_rec.data.publishers import load_published

ROOT = Path(os.environ.get("LORA_REC_DATA") or Path(__file__).parents[1].parent / "shared" / "data")
FOLDERS = {
    "movielens": "movielens-100k",
    "lastfm": "hetrec2011-lastfm-2k",
    "amazon": "amazon-beauty-2014",
    "online-retail": "online-retail",
    "mind": "mind-small-5k",
}


def real(name):
    """Gives a real data set by its publisher, or skips the test."""
    return _load(name, folder_of(name))


def folder_of(name):
    """Gives the folder of a real data set, or skips the test."""
    folder = ROOT / FOLDERS[name]
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing; set LORA_REC_DATA to the folder of the real data sets")
    return folder


@cache
def _load(name, folder):
    return load_published(name, folder)
