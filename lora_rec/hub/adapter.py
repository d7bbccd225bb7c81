"""Finds a plain PEFT adapter: a folder here, or one on the Hub, of which two files are fetched."""

from __future__ import annotations

from pathlib import Path

from lora_rec.errors import HubError
from lora_rec.hub.client import ask, open_hub
from lora_rec.hub_section import is_hub_name

FILES = ("adapter_config.json", "adapter_model.safetensors")
"""Weights in any other format can run code when they are read."""


def find_adapter(name: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Gives the folder of an adapter.

    Args:
        name: a folder, which always wins, or OWNER/NAME[/SUBFOLDER] on the Hub.
        revision: branch, tag or commit on the Hub.
        token: instead of the one that `hf auth login` or HF_TOKEN left.

    Raises:
        HubError: there is no such folder, the Hub refuses or cannot be reached, or what is there is no
            adapter with safetensors weights.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = [file for file in FILES if not (folder / file).is_file()]
        if missing:
            raise HubError(f"{name}: no PEFT adapter here ({missing[0]} is missing); give its folder")
        return folder
    owner, _, rest = name.partition("/")
    title, _, subfolder = rest.partition("/")
    repository = f"{owner}/{title}"
    if not is_hub_name(repository):
        raise HubError(f"{name}: neither a folder nor OWNER/NAME[/SUBFOLDER] on the Hub; give one of these")
    api = open_hub(token)
    found: list[Path] = []
    for file in FILES:
        # The second file is taken from the commit that the first one came from.
        commit = found[0].parents[len(Path(subfolder).parts)].name if found else revision
        path = ask(
            lambda file=file, commit=commit: api.hf_hub_download(  # type: ignore[misc]
                repository, file, subfolder=subfolder or None, revision=commit
            ),
            api,
            name=name,
            revision=commit,
        )
        found.append(Path(path))
    return found[0].parent
