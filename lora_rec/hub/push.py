"""Pushes a bundle to the Hub: one commit of an allow-list of files, with a card written from the bundle."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_rec.bundle import MANIFEST
from lora_rec.errors import BundleError, HubError
from lora_rec.hub.card import write_card
from lora_rec.hub.client import ask, open_hub, token_of
from lora_rec.hub.contents import Contents, gather
from lora_rec.hub.names import CARD, is_harmless, is_known
from lora_rec.hub_section import is_hub_name
from lora_rec.schema import TOWERS

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

logger = logging.getLogger(__name__)

BRANCH = "main"


@dataclass(frozen=True)
class Pushed:
    """What a push did."""

    name: str
    commit: str
    """Id of the commit; of the one that was there where nothing had changed."""
    url: str
    """Page of the repository at that commit."""
    sent: tuple[str, ...]
    """Files that are new or changed."""
    deleted: tuple[str, ...]
    """Files of an older bundle that this one has not."""
    n_unchanged: int


def push_bundle(
    bundle: str | Path,
    name: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    towers: Sequence[str] = TOWERS,
    item_texts: bool = True,
    item_vectors: bool = True,
    include: Sequence[str] = (),
    licence: str | None = None,
) -> Pushed:
    """Pushes a bundle as one commit; files that are there already are not sent again.

    Args:
        bundle: its folder.
        name: OWNER/NAME on the Hub; made where it is not there.
        private: whether only its owner sees it; left out, as it is, or as the Hub makes new ones.
        revision: branch; made from the main one where it is not there.
        commit_message: of the commit.
        token: instead of the one that `hf auth login` or HF_TOKEN left; it needs write access.
        towers: those of `schema.TOWERS` that go out.
        item_texts: false leaves the items' texts out.
        item_vectors: false leaves out all that holds vectors or weights of every item, the head with it.
        include: files that tell of single users, which otherwise stay here; see `names.USER_FILES`.
        licence: of the bundle, by the Hub's name, e.g. `apache-2.0`; the card says nothing when left out.

    Raises:
        BundleError: see `contents.gather`.
        HubError: the name is none, there is no token, the Hub refuses, or the repository holds something
            else or is public where `private` is true, or the reverse; the commit is whole or was not made.
    """
    if not is_hub_name(name):
        raise HubError(f"{name}: no name on the Hub; give owner/name")
    api = open_hub(token)
    secret = token_of(api)
    contents = gather(
        bundle,
        towers=towers,
        item_texts=item_texts,
        item_vectors=item_vectors,
        include=include,
        token=secret,
    )
    if secret is None:
        raise HubError(f"{name}: there is no token; log in first (hf auth login), or set HF_TOKEN")
    branch = revision or BRANCH
    named = None if branch == BRANCH else branch
    contents.files[CARD] = write_card(contents, name=name, revision=named, licence=licence).encode()
    head = _open_repository(api, name, branch=branch, private=private)
    there = _list_files(api, name, head)
    _refuse_other_contents(there, name)
    additions, deletions = _changes(contents, there)
    if additions or deletions:
        logger.info("%s: sending %d files, %d are there already", name, *_counts(contents, additions))
        message = commit_message or ("Update the bundle" if MANIFEST in there else "Add a bundle")
        head = _commit(
            api, name, contents, [*additions, *deletions], branch=branch, head=head, message=message
        )
    return Pushed(
        name=name,
        commit=head,
        url=f"{api.endpoint}/{name}/tree/{head}",
        sent=tuple(addition.path_in_repo for addition in additions),
        deleted=tuple(deletion.path_in_repo for deletion in deletions),
        n_unchanged=len(contents.files) - len(additions),
    )


def _counts(contents: Contents, additions: Sequence[object]) -> tuple[int, int]:
    return len(additions), len(contents.files) - len(additions)


def _open_repository(api: HfApi, name: str, *, branch: str, private: bool | None) -> str:
    """Makes the repository and the branch where they are not there; gives the branch's commit."""
    ask(lambda: api.create_repo(name, private=private, exist_ok=True), api, name=name)
    info = ask(lambda: api.model_info(name), api, name=name)
    if private and not info.private:
        raise HubError(
            f"{name}: it exists and is public, and a private one was asked for; nothing was sent; make it"
            " private on its page, or push to another name"
        )
    if private is False and info.private:
        raise HubError(
            f"{name}: it exists and is private, and a public one was asked for; nothing was sent; make it"
            " public on its page, or leave that wish out"
        )
    if branch == BRANCH:
        return str(info.sha)
    ask(lambda: api.create_branch(name, branch=branch, exist_ok=True), api, name=name)
    info = ask(lambda: api.model_info(name, revision=branch), api, name=name, revision=branch)
    return str(info.sha)


def _list_files(api: HfApi, name: str, commit: str) -> dict[str, tuple[int, str, str | None]]:
    """Gives path to size, git's SHA-1 and, for a large file, SHA-256."""
    from huggingface_hub.hf_api import RepoFile

    listed = ask(
        lambda: list(api.list_repo_tree(name, revision=commit, recursive=True)),
        api,
        name=name,
        revision=commit,
    )
    return {
        entry.path: (entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in listed
        if isinstance(entry, RepoFile)
    }


def _refuse_other_contents(there: dict[str, Any], name: str) -> None:
    """Refuses a repository that holds something else, which a push would mix with a bundle."""
    other = sorted(path for path in there if not is_harmless(path) and not is_known(path))
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise HubError(
            f"{name}: holds files that no bundle has ({other[0]}{more}); nothing was sent; delete them there,"
            " or push to another name"
        )


def _changes(
    contents: Contents, there: dict[str, tuple[int, str, str | None]]
) -> tuple[list[CommitOperationAdd], list[CommitOperationDelete]]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    additions = []
    for path, source in contents.files.items():
        if _is_there(contents, path, there.get(path)):
            continue
        addition = CommitOperationAdd(path, source if isinstance(source, bytes) else str(source))
        expected = contents.manifest.files.get(path)
        if expected is not None and addition.upload_info.sha256.hex() != expected:
            raise BundleError(f"{path}: changed while it was about to be sent; nothing was sent; push again")
        additions.append(addition)
    gone = sorted(path for path in there if is_known(path) and path not in contents.files)
    return additions, [CommitOperationDelete(path) for path in gone]


def _is_there(contents: Contents, path: str, known: tuple[int, str, str | None] | None) -> bool:
    if known is None:
        return False
    _, blob, large = known
    if large is not None and path in contents.manifest.files:
        return contents.manifest.files[path] == large
    raw = contents.read(path)
    if large is not None:
        return hashlib.sha256(raw).hexdigest() == large
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest() == blob


def _commit(
    api: HfApi,
    name: str,
    contents: Contents,
    operations: Sequence[CommitOperationAdd | CommitOperationDelete],
    *,
    branch: str,
    head: str,
    message: str,
) -> str:
    """Makes the commit on top of `head`; gives its id.

    An error may come after the Hub has made it. So whoever tries again looks first whether it is there.
    """
    tries = 0

    def attempt() -> str:
        nonlocal tries
        tries += 1
        if tries > 1:
            now = str(api.model_info(name, revision=branch).sha)
            if now != head:
                there = _list_files(api, name, now)
                if all(_is_there(contents, path, there.get(path)) for path in contents.files):
                    return now
                raise HubError(f"{name}: somebody else changed it meanwhile; push again")
        return api.create_commit(
            name, operations, commit_message=message, revision=branch, parent_commit=head
        ).oid

    return ask(attempt, api, name=name, revision=branch)
