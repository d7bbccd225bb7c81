"""A user's text from their own history and from their friends'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.text.templates import UNTITLED, render_histories

_Ints = NDArray[np.int64]


def social_text(
    histories: Lists,
    friends: NDArray[np.int64],
    item_texts: Sequence[str],
    *,
    item_tags: Sequence[str] | None = None,
    history_length: int = 10,
    friends_length: int = 10,
    n_tags: int = 5,
    newest_first: bool = True,
) -> list[str]:
    """Writes one text per user: the own history, what friends took lately, and tags shared with friends.

    A friend's latest `friends_length` items count. Those that the user does not have are written, first what
    most friends have, then what is newest to one of them. A tag is shared when it is on an item of the user's
    history and on one of a friend's; first what most friends share, then what the user has most often. A part
    that is empty is left out. Pass training histories: friends' held-out items must not be told.

    Args:
        histories: one per user, oldest first.
        friends: (E, 2), undirected pairs of users, each once.
        item_texts: how each item is written in a history.
        item_tags: one text per item, tags parted by ", "; no tags are written when left out.
        history_length: most recent items of the own history that are written.
        friends_length: items of friends that are written.
        n_tags: shared tags that are written.
        newest_first: order of the own history.

    Raises:
        DataError: a friend is no user, or there is not one text or tag entry per item.

    >>> histories = Lists.from_arrays([[0, 1], [1, 2], [2]])
    >>> texts, tags = ["Norn", "Elder", "Ulla"], ["folk, nordic", "folk", "jazz"]
    >>> social_text(histories, np.array([[0, 1], [0, 2]]), texts, item_tags=tags)[0]
    'Elder; Norn. Friends: Ulla. Shared tags: folk'
    """
    pairs = np.asarray(friends, np.int64).reshape(-1, 2)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= len(histories)):
        raise DataError(
            f"social_text.friends: a user is outside 0..{len(histories) - 1}; use internal user ids"
        )
    if item_tags is not None and len(item_tags) != len(item_texts):
        raise DataError(
            f"social_text.item_tags: {len(item_tags)} for {len(item_texts)} items; give one each, '' if none"
        )
    users, others = np.concatenate([pairs, pairs[:, ::-1]]).T
    own = render_histories(histories, item_texts, length=history_length, newest_first=newest_first)
    offered = _friends_items(histories, users, others, n_items=len(item_texts), length=friends_length)
    texts = []
    tagged = [""] * len(own)
    if item_tags is not None:
        tagged = _shared_tags(histories, users, others, item_tags, n_tags=n_tags)
    for text, items, tags in zip(own, offered, tagged, strict=True):
        parts = [text] if text != UNTITLED else []
        if len(items):
            parts.append(f"Friends: {'; '.join(item_texts[item] for item in items)}")
        if tags:
            parts.append(f"Shared tags: {tags}")
        texts.append(". ".join(parts) or UNTITLED)
    return texts


def _friends_items(histories: Lists, users: _Ints, others: _Ints, *, n_items: int, length: int) -> Lists:
    """Gives the items that friends took lately and the user did not, best first, at most `length` each."""
    counts = np.minimum(histories.counts, length)
    ends = histories.offsets[1:]
    flat = np.repeat(users, counts[others])
    back = 1 + _places(counts[others])  # 1 for a friend's newest
    items = histories.values[np.repeat(ends[others], counts[others]) - back]
    keys, group, n_friends = np.unique(flat * n_items + items, return_inverse=True, return_counts=True)
    newest = np.full(len(keys), length + 1)
    np.minimum.at(newest, group, back)
    own = np.repeat(np.arange(len(histories)), histories.counts) * n_items + histories.values
    fresh = ~np.isin(keys, own)
    keys, n_friends, newest = keys[fresh], n_friends[fresh], newest[fresh]
    order = np.lexsort((keys, newest, -n_friends, keys // n_items))
    return _first(keys[order] // n_items, keys[order] % n_items, n_groups=len(histories), length=length)


def _shared_tags(
    histories: Lists, users: _Ints, others: _Ints, item_tags: Sequence[str], *, n_tags: int
) -> list[str]:
    """Writes the tags that a user shares with friends, best first."""
    split = [[tag for tag in text.split(", ") if tag] for text in item_tags]
    names, codes = np.unique(
        np.array([t for tags in split for t in tags], object).astype(str), return_inverse=True
    )
    lists = Lists(
        codes.astype(np.int64), np.concatenate([[0], np.cumsum([len(t) for t in split])]).astype(np.int64)
    )
    owners = np.repeat(np.arange(len(histories)), histories.counts)
    taken = lists.take(histories.values)
    n_names = max(len(names), 1)
    own, times = np.unique(np.repeat(owners, taken.counts) * n_names + taken.values, return_counts=True)
    per_user = Lists.from_groups(own // n_names, own % n_names, n_groups=len(histories))
    theirs = per_user.take(others)
    keys, n_friends = np.unique(np.repeat(users, theirs.counts) * n_names + theirs.values, return_counts=True)
    shared = np.isin(keys, own)
    keys, n_friends = keys[shared], n_friends[shared]
    often = times[np.searchsorted(own, keys)]
    order = np.lexsort((keys, -often, -n_friends, keys // n_names))
    chosen = _first(keys[order] // n_names, keys[order] % n_names, n_groups=len(histories), length=n_tags)
    return [", ".join(names[tag] for tag in tags) for tags in chosen]


def _places(counts: _Ints) -> _Ints:
    """Gives 0, 1, ... within each of the groups that lie one after another."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _first(groups: _Ints, values: _Ints, *, n_groups: int, length: int) -> Lists:
    """Gives the first values of each group; the groups are sorted."""
    kept = _places(np.bincount(groups, minlength=n_groups)) < length
    return Lists.from_groups(groups[kept], values[kept], n_groups=n_groups)
