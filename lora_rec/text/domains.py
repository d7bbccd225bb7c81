"""Templates that make good texts, per domain; each example is a real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Domain = Literal["e-commerce", "music", "news", "social", "video"]


@dataclass(frozen=True)
class DomainTexts:
    """How a domain's items and histories are written; for the section `text` of a recipe."""

    item_template: str
    """See `text.templates.render_items`."""
    history_item_template: str
    """How one item of a history is written."""
    history_length: int
    """Most recent items of a history in the user text."""


E_COMMERCE = DomainTexts("{title}", "{title}", 12)
"""A product title holds brand, kind and size; twelve take about 80 tokens.

Online Retail:

    item: CHARLOTTE BAG DOLLY GIRL DESIGN
    user: CHARLOTTE BAG DOLLY GIRL DESIGN; BAKING SET 9 PIECE RETROSPOT; S/6 WOODEN SKITTLES IN
        COTTON BAG; ...

With the 2023 release of the Amazon reviews, "{title}[, by {store}][, {categories}]" says more.
"""

MUSIC = DomainTexts("{title}[: {tags}]", "{title}", 20)
"""A name alone tells nothing of an artist that the model has not met, and tags do; twenty names take about 80
tokens.

Last.fm, most played first:

    item: No Angels: pop, german, female vocalists, girl groups, popstars
    user: No Angels; Sandy; Britney Spears; Vanessa Petruo; Beyoncé; Alexander; Sugababes; Queensberry; ...
"""

VIDEO = DomainTexts("{title}[ ({year})][, {genres}]", "{title}", 10)
"""The year tells remakes apart and genres help with unknown films; ten titles take about 50 tokens.

MovieLens-100K:

    item: Critical Care (1997), Comedy
    user: Critical Care; One Flew Over the Cuckoo's Nest; Heathers; Audrey Rose; Chinatown; Piano, The; ...
"""

NEWS = DomainTexts("[{category}: ]{title}", "{title}", 6)
"""Headlines are sentences: six take about 90 tokens. The category in front names the section.

MIND:

    item: news: Holocaust survivor under guard amid death threats
    user: Holocaust survivor under guard amid death threats; 'Sons Of Anarchy' Star Ron Perlman Files for
        Divorce After 38 Years of Marriage; ...
"""

SOCIAL = DomainTexts("{title}[: {tags}]", "{title}", 10)
"""As music, with a shorter history, because friends follow it, see `text.social`: about 95 tokens in all.

Last.fm, random split, training histories:

    item: Morcheeba: trip-hop, chillout, downtempo, electronic, female vocalists
    user: Morcheeba; Air; Hooverphonic; Daft Punk; Thievery Corporation; Goldfrapp; New Order; Matt Bianco;
        Talk Talk; Röyksopp. Friends: Duran Duran; The Human League; Pet Shop Boys; Simple Minds; U2; Arcadia;
        The Cure; Placebo; a-ha; Erasure. Shared tags: electronic, pop, 80s, female vocalists, alternative
"""

DOMAINS: dict[Domain, DomainTexts] = {
    "e-commerce": E_COMMERCE,
    "music": MUSIC,
    "news": NEWS,
    "social": SOCIAL,
    "video": VIDEO,
}
"""Domain to its texts; `data.publishers.PUBLISHERS[name].domain` is a key."""
