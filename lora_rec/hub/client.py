"""The Hub's client: opened when needed, asked again when an error may pass, its errors in our words."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lora_rec.errors import HubError, LoraRecError, missing_extra

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

TRIES = 3
WAIT_SECONDS = 1.0
LONGEST_WAIT = 10.0
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")


class Unreachable(HubError):
    """The Hub does not answer, or is down; a copy in the cache may do."""


def open_hub(token: str | None = None) -> HfApi:
    """Gives the client.

    Args:
        token: instead of the one that `hf auth login` or HF_TOKEN left.

    Raises:
        LoraRecError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise missing_extra("huggingface_hub", extra="hub") from error
    return HfApi(token=token, library_name="lora_rec")


def token_of(api: HfApi) -> str | None:
    """Gives the token that the client sends; None where there is none."""
    from huggingface_hub import get_token

    return api.token if isinstance(api.token, str) else get_token()


def ask(call: Callable[[], T], api: HfApi, *, name: str, revision: str | None = None) -> T:
    """Calls the client, again where an error may pass by itself.

    Args:
        call: can be repeated without harm.
        api: whose token is kept out of errors.
        name: of the repository, for errors.
        revision: the same.

    Raises:
        HubError: in one line what is wrong and what to do; `Unreachable` where the Hub does not answer.
    """
    for left in reversed(range(TRIES)):
        try:
            return call()
        except LoraRecError:
            raise
        except Exception as error:
            cause = _cause_of(error)
            if left and _may_pass(cause):
                time.sleep(_wait_for(cause))
                continue
            known = translate(cause, name=name, revision=revision, token=token_of(api))
            if known is None:
                raise
            raise known from error
    raise AssertionError("the last try returns or raises")


def _cause_of(error: Exception) -> Exception:
    """Gives the error of the Hub that a failed upload wraps into a RuntimeError."""
    while isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _wait_for(error: Exception) -> float:
    """Gives the seconds until the next try: those that the Hub asks for, up to a bound."""
    response = getattr(error, "response", None)
    asked = "" if response is None else response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT) if asked.isdecimal() else WAIT_SECONDS


def hide_tokens(text: str, token: str | None) -> str:
    """Takes tokens out of a text.

    >>> hide_tokens("sent hf_abcdefghijklmnopqrstuvwx", None)
    'sent hf_***'
    """
    return _TOKEN.sub("hf_***", text.replace(token, "hf_***") if token else text)


def translate(error: Exception, *, name: str, revision: str | None, token: str | None) -> HubError | None:
    """Gives our error for one of the client's; None for one that is none of the Hub's business."""
    from huggingface_hub import errors

    # The client's own errors stand on its HTTP library's, whichever that is in this version.
    transport: type[Exception] = errors.HfHubHTTPError.__mro__[1]
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Unreachable(
            f"{name}: the Hub is switched off (HF_HUB_OFFLINE=1); unset that, or give a folder"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return Unreachable(
            f"{name}: the Hub does not answer, and the file is not in its cache; connect and try again"
        )
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{name}: it is gated; ask for access on its page on the Hub, then log in")
    if isinstance(error, errors.RepositoryNotFoundError):
        why = "the token may not see it" if token else "it is private and there is no token (hf auth login)"
        return HubError(
            f"{name}: there is no such folder here, and the Hub has no such repository, or {why}; check the"
            " name"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{name}: no branch, tag or commit {revision!r}; look at its page, or leave it out")
    if isinstance(error, errors.EntryNotFoundError):
        return HubError(f"{name}: a file is missing on the Hub ({_first_line(error, token)}); tell its maker")
    if isinstance(error, errors.HfHubHTTPError):
        return _translate_status(error, name=name, token=token)
    if isinstance(error, transport):
        return Unreachable(
            f"{name}: the Hub cannot be reached ({type(error).__name__}: {_first_line(error, token)});"
            " check the network and try again"
        )
    if isinstance(error, (OSError, ValueError, RuntimeError)):
        return HubError(f"{name}: {_first_line(error, token)}; put that right and try again")
    return None


def _translate_status(error: Any, *, name: str, token: str | None) -> HubError:
    status = error.response.status_code
    said = hide_tokens(error.server_message or "", token)
    if status == 401:
        return HubError(
            f"{name}: the Hub does not accept the token ({said or status}); log in again: hf auth login"
        )
    if status == 403:
        return HubError(
            f"{name}: the token may not do this ({said or status}); make one with write access to"
            f" {name.split('/')[0]} and log in with it: hf auth login"
        )
    if status in (409, 412):
        return HubError(f"{name}: somebody else changed it meanwhile ({said or status}); try again")
    if status == 429:
        return Unreachable(f"{name}: the Hub has had too many requests from here; wait some minutes")
    if status >= 500:
        return Unreachable(f"{name}: the Hub is in trouble (status {status}); try again later")
    return HubError(f"{name}: the Hub refused ({said or status}); put that right and try again")


def _first_line(error: Exception, token: str | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return hide_tokens(lines[0], token) if lines else type(error).__name__


def _may_pass(error: Exception) -> bool:
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    transport: type[Exception] = errors.HfHubHTTPError.__mro__[1]
    # Who is not there now is not there in a second either: a copy in the cache is better than waiting.
    absent = ("ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol")
    return isinstance(error, transport) and type(error).__name__ not in absent
