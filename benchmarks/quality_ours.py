"""Our own systems of the quality benchmark: the one place to add them.

A system is `System(run, fits)`: `run(prepared, seed, trials)` takes a `RankingSet` or an `ImpressionSet`,
chooses on its validation part with at most `trials` trials, learns again where it wants to, and gives an
`Answer` for its test part; `fits(prepared)` gives "" or the reason why it cannot run on a set. Set
`seeded=True` for one that draws random numbers. `quality_judge.lists_of` cuts lists from scores, and
`quality_judge.choose_and_rank` does all of it for a system that is a function of a part and its settings.
"""

from __future__ import annotations

from quality_judge import System

OURS: dict[str, System] = {}
