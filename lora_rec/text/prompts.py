"""Questions to a language model whose answer is yes or no."""

from __future__ import annotations

from collections.abc import Sequence

YES, NO = " yes", " no"
"""How the answers go on from the prompt."""
QUESTION_END = "Answer yes or no:"


def like_prompt(liked: Sequence[str], disliked: Sequence[str], item: str) -> str:
    """Asks whether a user likes an item, from what they liked and did not like.

    >>> like_prompt(["Alien", "Heat"], [], "Fargo")
    'The user liked: Alien; Heat. Did the user like Fargo? Answer yes or no:'
    """
    parts = [f"The user liked: {'; '.join(liked)}." if len(liked) else ""]
    parts += [f"The user did not like: {'; '.join(disliked)}." if len(disliked) else ""]
    parts += [f"Did the user like {item}? {QUESTION_END}"]
    return " ".join(part for part in parts if part)
