"""A user's text from their own history and from their friends'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.text.templates import UNTITLED, render_histories

_Ints = NDArray[np.int64]
ROWS_AT_ONCE = 4096  # what friends took lies side by side in memory


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
    users: _Ints | None = None,
    friend_histories: Lists | None = None,
) -> list[str]:
    """Writes one text per history: the history, what friends took lately, and tags shared with friends.

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
        users: whose each history is; that of user i is history i when left out.
        friend_histories: one per user, what friends are seen to have; `histories` when left out.

    Raises:
        DataError: a friend is no user, or there is not one text or tag entry per item.

    >>> histories = Lists.from_arrays([[0, 1], [1, 2], [2]])
    >>> texts, tags = ["Norn", "Elder", "Ulla"], ["folk, nordic", "folk", "jazz"]
    >>> social_text(histories, np.array([[0, 1], [0, 2]]), texts, item_tags=tags)[0]
    'Elder; Norn. Friends: Ulla. Shared tags: folk'
    """
    theirs = histories if friend_histories is None else friend_histories
    whose = np.arange(len(histories)) if users is None else users
    pairs = np.asarray(friends, np.int64).reshape(-1, 2)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= len(theirs)):
        raise DataError(f"social_text.friends: a user is outside 0..{len(theirs) - 1}; use internal user ids")
    if item_tags is not None and len(item_tags) != len(item_texts):
        raise DataError(
            f"social_text.item_tags: {len(item_tags)} for {len(item_texts)} items; give one each, '' if none"
        )
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    friends_of = Lists.from_groups(both[:, 0], both[:, 1], n_groups=len(theirs))
    own = render_histories(histories, item_texts, length=history_length, newest_first=newest_first)
    tags = None if item_tags is None or n_tags < 1 else _Tags.read(item_tags, theirs)
    texts = []
    for start in range(0, len(histories), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(histories)))
        mine, others = histories.take(rows), friends_of.take(whose[rows])
        offered = _friends_items(mine, others, theirs, n_items=len(item_texts), length=friends_length)
        shared = [""] * len(rows) if tags is None else _shared_tags(mine, others, tags, n_tags=n_tags)
        for row, items, names in zip(rows, offered, shared, strict=True):
            parts = [own[row]] if own[row] != UNTITLED else []
            if len(items):
                parts.append(f"Friends: {'; '.join(item_texts[item] for item in items)}")
            if names:
                parts.append(f"Shared tags: {names}")
            texts.append(". ".join(parts) or UNTITLED)
    return texts


def _friends_items(mine: Lists, friends: Lists, theirs: Lists, *, n_items: int, length: int) -> Lists:
    """Gives the items that friends took lately and the user did not, best first, at most `length` each."""
    rows, others = np.repeat(np.arange(len(friends)), friends.counts), friends.values
    counts = np.minimum(theirs.counts, length)[others]
    flat = np.repeat(rows, counts)
    back = 1 + _places(counts)  # 1 for a friend's newest
    items = theirs.values[np.repeat(theirs.offsets[1:][others], counts) - back]
    keys, group, n_friends = np.unique(flat * n_items + items, return_inverse=True, return_counts=True)
    newest = np.full(len(keys), length + 1)
    np.minimum.at(newest, group, back)
    own = np.repeat(np.arange(len(mine)), mine.counts) * n_items + mine.values
    fresh = ~np.isin(keys, own)
    keys, n_friends, newest = keys[fresh], n_friends[fresh], newest[fresh]
    order = np.lexsort((keys, newest, -n_friends, keys // n_items))
    return _first(keys[order] // n_items, keys[order] % n_items, n_groups=len(mine), length=length)


@dataclass(frozen=True, eq=False)
class _Tags:
    """Tags by number."""

    names: NDArray[np.str_]
    items: Lists
    """Of each item."""
    users: Lists
    """The distinct tags of each user's history."""

    @classmethod
    def read(cls, item_tags: Sequence[str], histories: Lists) -> _Tags:
        split = [[tag for tag in text.split(", ") if tag] for text in item_tags]
        names, codes = np.unique(
            np.array([t for tags in split for t in tags], object).astype(str), return_inverse=True
        )
        ends = np.concatenate([[0], np.cumsum([len(t) for t in split])]).astype(np.int64)
        items = Lists(codes.astype(np.int64), ends)
        own, _ = _count_tags(histories, items, n_names=len(names))
        n_names = max(len(names), 1)
        return cls(names, items, Lists.from_groups(own // n_names, own % n_names, n_groups=len(histories)))


def _count_tags(histories: Lists, items: Lists, *, n_names: int) -> tuple[_Ints, _Ints]:
    """Gives the pairs of history and tag as one number each, sorted, and how often each comes."""
    owners = np.repeat(np.arange(len(histories)), histories.counts)
    taken = items.take(histories.values)
    keys, times = np.unique(
        np.repeat(owners, taken.counts) * max(n_names, 1) + taken.values, return_counts=True
    )
    return keys, times


def _shared_tags(mine: Lists, friends: Lists, tags: _Tags, *, n_tags: int) -> list[str]:
    """Writes the tags that a user shares with friends, best first."""
    n_names = max(len(tags.names), 1)
    own, times = _count_tags(mine, tags.items, n_names=len(tags.names))
    theirs = tags.users.take(friends.values)
    rows = np.repeat(np.arange(len(friends)), friends.counts)
    keys, n_friends = np.unique(np.repeat(rows, theirs.counts) * n_names + theirs.values, return_counts=True)
    shared = np.isin(keys, own)
    keys, n_friends = keys[shared], n_friends[shared]
    often = times[np.searchsorted(own, keys)]
    order = np.lexsort((keys, -often, -n_friends, keys // n_names))
    chosen = _first(keys[order] // n_names, keys[order] % n_names, n_groups=len(mine), length=n_tags)
    return [", ".join(tags.names[tag] for tag in one) for one in chosen]


def _places(counts: _Ints) -> _Ints:
    """Gives 0, 1, ... within each of the groups that lie one after another."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _first(groups: _Ints, values: _Ints, *, n_groups: int, length: int) -> Lists:
    """Gives the first values of each group; the groups are sorted."""
    kept = _places(np.bincount(groups, minlength=n_groups)) < length
    return Lists.from_groups(groups[kept], values[kept], n_groups=n_groups)
