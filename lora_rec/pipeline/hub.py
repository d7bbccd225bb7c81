"""The push at the end of a run, which never costs the run."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from lora_rec.errors import LoraRecError
from lora_rec.hub import push_bundle
from lora_rec.hub.client import open_hub, token_of
from lora_rec.hub_section import HubSection

logger = logging.getLogger(__name__)


def check_push(section: HubSection) -> None:
    """Says before a run, not after it, what its push will lack; the run goes on."""
    if section.push is None:
        return
    try:
        if token_of(open_hub()) is None:
            logger.warning(
                "hub.push: there is no token, so the push at the end will fail; log in: hf auth login"
            )
    except LoraRecError as error:
        logger.warning("hub.push: the push at the end will fail: %s", error)


def push_after_run(section: HubSection, folder: Path) -> str | None:
    """Pushes a run's bundle, which lies safely on disk.

    Returns:
        A line that says what came of it, and after a failure how to push by hand; None where nothing is to be
        pushed.
    """
    if section.push is None:
        return None
    try:
        pushed = push_bundle(
            folder,
            section.push,
            private=section.private,
            revision=section.revision,
            commit_message=section.commit_message,
            item_texts=section.item_texts,
            item_vectors=section.item_vectors,
            licence=section.licence,
        )
    except Exception as error:  # hours of training stand against a network that is down
        logger.error("hub.push: %s", error)
        return (
            f"NOT pushed ({error}); the bundle is safe in {folder}; by hand: {push_command(section, folder)}"
        )
    return f"pushed: {pushed.name}, commit {pushed.commit}"


def push_command(section: HubSection, folder: Path) -> str:
    """Gives the command that pushes as the section says.

    >>> push_command(HubSection(push="ann/films", private=True), Path("runs/mine"))
    'lora-rec push runs/mine ann/films --private'
    """
    parts = ["lora-rec", "push", str(folder), str(section.push)]
    parts += ["--private"] * (section.private is True) + ["--public"] * (section.private is False)
    for flag, value in (
        ("--revision", section.revision),
        ("--message", section.commit_message),
        ("--licence", section.licence),
    ):
        parts += [flag, value] if value is not None else []
    parts += ["--without-item-texts"] * (not section.item_texts)
    parts += ["--without-item-vectors"] * (not section.item_vectors)
    return shlex.join(parts)
