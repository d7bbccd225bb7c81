"""Keeps threads that share an object apart."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class Locked(Protocol):
    """What has a lock that one thread may take several times, `threading.RLock`."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held by whoever is in a method of the object."""


_T = TypeVar("_T", bound=Locked)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def one_at_a_time(method: Callable[Concatenate[_T, _P], _R]) -> Callable[Concatenate[_T, _P], _R]:
    """Makes a method wait until no other thread is in one of the same object that is so marked."""

    @wraps(method)
    def guarded(self: _T, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self.lock:
            return method(self, *args, **kwargs)

    return guarded
