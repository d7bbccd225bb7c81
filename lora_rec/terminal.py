"""What is printed, made fit for any terminal."""

from __future__ import annotations

import io
import re
import sys

_OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of writing."""


def show_all_letters() -> None:
    """Writes letters that the terminal's encoding lacks as escapes: a title may not end a long run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def visible(line: str) -> str:
    """Gives a line without what a terminal would obey: a bundle's titles may be anybody's.

    >>> visible("Heat" + chr(27) + "[31m")
    'Heat�[31m'
    """
    return _OBEYED.sub("\N{REPLACEMENT CHARACTER}", line)
