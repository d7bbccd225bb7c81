"""User texts as the recipe wants them: the history, and friends where it asks for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset
from lora_rec.data.friends import Friendships, match_friends, read_friends
from lora_rec.data.lists import Lists
from lora_rec.data.publishers import load_published
from lora_rec.data_section import DataSection
from lora_rec.errors import DataError, did_you_mean
from lora_rec.recipe import TextSection
from lora_rec.text.social import social_text
from lora_rec.text.templates import render_histories


def read_friendships(section: DataSection, dataset: Dataset) -> Friendships:
    """Reads the friendships among the users of a data set that the same section gave.

    Raises:
        DataError: there are none, or the table is wrong; a user whom the data does not have is an error
            unless the section filters users.
    """
    some_left_out = section.min_interactions > 1 or section.min_rating is not None
    if section.friends is not None:
        return read_friends(
            section.friends,
            user_ids=dataset.user_ids,
            user_column=section.friends_user_column,
            friend_column=section.friends_friend_column,
            some_left_out=some_left_out,
        )
    published = load_published(section.source, section.root, variant=section.variant)
    if published.friends is None:
        raise DataError(f"friends: {section.source} has none; set text.friends_length and n_shared_tags to 0")
    names = published.dataset.user_ids[published.friends]
    return match_friends(names, user_ids=dataset.user_ids, some_left_out=True)


def render_users(
    text: TextSection,
    dataset: Dataset,
    histories: Lists,
    item_texts: Sequence[str],
    *,
    users: NDArray[np.int64],
    friendships: Friendships | None,
    friend_histories: Lists,
) -> list[str]:
    """Writes one text per history.

    Args:
        text: the recipe's section.
        dataset: has the tags.
        histories: what is known of each user, oldest first.
        item_texts: how each item is written in a history.
        users: whose each history is.
        friendships: None where friends are not wanted.
        friend_histories: one per user of the data set, and the same for every history: what a friend has in
            training, also what came after the point of a training example.

    Raises:
        DataError: the item table lacks the field with the tags.
    """
    length, newest_first = text.history_length, text.newest_first
    if friendships is None:
        return render_histories(histories, item_texts, length=length, newest_first=newest_first)
    tags = None
    if text.n_shared_tags:
        if text.tags_field not in dataset.item_fields:
            known = ", ".join(dataset.item_fields)
            hint = did_you_mean(text.tags_field, dataset.item_fields) or f"the item table has: {known}"
            raise DataError(f"text.tags_field: there is no field {text.tags_field!r}; {hint}")
        tags = dataset.item_fields[text.tags_field]
    return social_text(
        histories,
        friendships.pairs,
        item_texts,
        item_tags=tags,
        history_length=length,
        friends_length=text.friends_length,
        n_tags=text.n_shared_tags,
        newest_first=newest_first,
        users=users,
        friend_histories=friend_histories,
    )
