"""From a bundle, and perhaps its data, to the page and its pictures on disk."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_rec.bundle import replace_file
from lora_rec.data.dataset import Dataset
from lora_rec.errors import DataError, missing_extra
from lora_rec.page.data import find_data, read_data
from lora_rec.page.render import render_page
from lora_rec.page.run import read_run
from lora_rec.page.users import Again, Example, add_words, rank_again, show_users
from lora_rec.schema import ITEM_TEXTS

ELSEWHERE = "name another place"


@dataclass(frozen=True)
class Written:
    """What was written."""

    page: Path
    pictures: tuple[Path, ...]
    n_users: int
    """Whose histories are on the page."""


def write_report(
    bundle: str | Path,
    output: str | Path,
    *,
    data: Sequence[str] | None = None,
    pictures: str | Path | None = None,
    n_users: int = 4,
    n_words: int = 0,
    user_backbone: str | None = None,
    item_backbone: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Written:
    """Writes one page about a bundle's run; nothing is written before all of it is there.

    Args:
        bundle: output folder of a run.
        output: the page's file; an older one is replaced.
        data: see `page.data.find_data`; None leaves out what needs it, so that no user is on the page.
        pictures: folder for the pictures, as PNG files without any user; made if it is not there.
        n_users: helped, hurt and at random, so many of each.
        n_words: for so many users both towers say which words carried an item.
        user_backbone: see `load_towers`.
        item_backbone: see `load_towers`.
        seed: of every draw of users.
        show_progress: bars.

    Raises:
        LoraRecError: the bundle, the data or the place does not serve.
    """
    place = _check_place(output)
    folder = None if pictures is None else _check_folder(pictures)
    _check_packages()
    if n_users < 1 or n_words < 0:
        raise DataError(f"users: {n_users}, words: {n_words}; give 1 or more, and 0 or more")
    if seed < 0:
        raise DataError(f"seed: {seed} is below 0; give a whole number from 0")
    if data is None and n_words:
        raise DataError("words: without --data there is no user to explain; give it, or leave --words out")
    run = read_run(bundle)
    again: Again | None = None
    users: list[Example] | None = None
    if data is not None:
        dataset, split = read_data(run, find_data(bundle, data))
        if ITEM_TEXTS in run.manifest.left_out:
            run = replace(run, recommender=run.recommender.with_item_fields(_by_id(dataset)))
        again = rank_again(run, dataset, split)
        users = show_users(run, again, n=n_users, seed=seed, show_progress=show_progress)
    if users and n_words:
        from lora_rec import load_towers

        towers = load_towers(bundle, user_backbone=user_backbone, item_backbone=item_backbone)
        users = add_words(run, users, towers, n=n_words, show_progress=show_progress)
    page = render_page(run, again, users)
    paths = []
    if folder is not None:
        folder.mkdir(exist_ok=True)
        for picture in page.pictures:
            paths.append(folder / f"{picture.name}.png")
            replace_file(paths[-1], picture.light, advice=ELSEWHERE)
    replace_file(place, page.html.encode("utf-8"), advice=ELSEWHERE)
    return Written(place, tuple(paths), len(users or ()))


def _by_id(dataset: Dataset) -> dict[str, dict[str, str]]:
    """Gives each field's texts by item id."""
    ids = dataset.item_ids.tolist()
    return {name: dict(zip(ids, texts, strict=True)) for name, texts in dataset.item_fields.items()}


def _check_place(output: str | Path) -> Path:
    """Refuses, before the work, a place where no file can be written."""
    place = Path(output)
    if place.is_dir():
        raise DataError(f"output: {output} is a folder; give a file, e.g. {place / 'report.html'}")
    if not place.parent.is_dir():
        raise DataError(f"output: there is no folder {place.parent}; make it, or {ELSEWHERE}")
    if not os.access(place.parent, os.W_OK):
        raise DataError(f"output: {place.parent} cannot be written; {ELSEWHERE}")
    return place


def _check_folder(pictures: str | Path) -> Path:
    """Refuses a folder of pictures that is a file or cannot be made."""
    folder = Path(pictures)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"pictures: {pictures} is a file; give a folder")
    _check_place(folder / "systems.png" if folder.is_dir() else folder)
    return folder


def _check_packages() -> None:
    for module in ("matplotlib", "jinja2", "torch"):
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, extra="train")
