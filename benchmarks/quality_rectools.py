"""The peers of rectools: run by the interpreter of an environment of their own, because its pins conflict."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
from quality_judge import Answer, System
from quality_peers import in_order, lists_only
from quality_search import VERSION, Axes
from quality_sets import Prepared, RankingSet

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "peers" / "rectools_peers.py"
LIMIT_HOURS = 12.0
_TRANSFORMER: Axes = {
    "epochs": (5, 10, 20, 40, 80),
    "learning_rate": (3e-4, 1e-3, 3e-3),
    "dropout": (0.1, 0.2, 0.4),
    "factors": (32, 64, 128),
}
# Of each pass a masked position in seven teaches BERT4Rec something, and every one SASRec: it takes many more
# of them (Petrov and Macdonald 2022, arXiv 2207.07483). On MovieLens validation, when it learned from the
# last 51 items of a history alone, 20 had .068 and 80 had .099.
_MASKED: Axes = {
    "epochs": (20, 40, 80, 160),
    "learning_rate": (3e-4, 1e-3, 3e-3),
    "dropout": (0.05, 0.1, 0.2),
    "factors": (64, 128, 256),
}
_START = {"epochs": 20, "learning_rate": 1e-3, "dropout": 0.2, "factors": 64}
AXES: dict[str, Axes] = {
    "ials": {
        "regularisation": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        "alpha": (1, 3, 10, 30),
        "factors": (32, 64, 128, 256, 512),
    },
    "bpr": {
        "epochs": (50, 100, 200, 400),
        "learning_rate": (0.003, 0.01, 0.03, 0.1),
        "regularisation": (0.001, 0.01, 0.1),
        "factors": (16, 32, 64, 128),
    },
    "sasrec": _TRANSFORMER,
    "bert4rec": _MASKED,
    # It scores by cosines, and among thousands of items a softmax of those learns little as they are: on
    # MovieLens validation .069, and .095 with the temperature of rectools' own example.
    "hstu": _TRANSFORMER | {"temperature": (0.05,)},
}
STARTS: dict[str, dict[str, float]] = {
    "ials": {"regularisation": 1.0, "alpha": 10, "factors": 64},
    "bpr": {"epochs": 100, "learning_rate": 0.03, "regularisation": 0.01, "factors": 64},
    "sasrec": _START,
    "bert4rec": {"epochs": 40, "learning_rate": 1e-3, "dropout": 0.1, "factors": 128},
    "hstu": _START | {"temperature": 0.05},
}


class PeerFailed(Exception):
    """A peer could not be run; the text is the reason that the header keeps."""


def write_set(prepared: RankingSet, file: Path) -> None:
    """Writes what a peer needs of both parts, as flat arrays."""
    arrays = {"n_items": np.array(prepared.n_items)}
    for name, part in (("validation", prepared.validation), ("test", prepared.test)):
        arrays[f"{name}_users"] = part.evaluation.users
        arrays[f"{name}_fit_weights"] = part.fit.relative_strengths()
        for key, lists in (("fit", part.fit), ("targets", part.evaluation.targets)):
            arrays |= {f"{name}_{key}_values": lists.values, f"{name}_{key}_offsets": lists.offsets}
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def call_peer(command: list[str], *, log: Path) -> None:
    """Runs a script of `peers/` in the log's folder; its errors go to the log.

    Raises:
        PeerFailed: with the last line of the log, or that it took too long.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        with open(log, "w") as errors:
            limit = LIMIT_HOURS * 3600
            subprocess.run(command, check=True, env=environment, stderr=errors, timeout=limit, cwd=log.parent)
    except subprocess.TimeoutExpired as error:
        raise PeerFailed(f"took longer than {LIMIT_HOURS:g} hours on this machine") from error
    except (subprocess.CalledProcessError, OSError) as error:
        last = ([""] + log.read_text(errors="replace").strip().splitlines())[-1]
        raise PeerFailed(f"failed: {last or error}") from error


def run_peer(prepared: Prepared, seed: int, trials: int, *, peer: str, python: Path, folder: Path) -> Answer:
    """Runs one peer with one seed in its own interpreter.

    The first seed that runs chooses the settings and leaves them for the other seeds: a choice for each would
    take three times as long.
    """
    assert isinstance(prepared, RankingSet)  # `fits` saw to that
    settings = {
        "version": VERSION,
        "peer": peer,
        "axes": {key: list(values) for key, values in AXES[peer].items()},
        "start": STARTS[peer],
    }
    task, output = folder / f"task-{os.getpid()}.npz", folder / f"answer-{os.getpid()}.npz"
    choice = folder / f"{prepared.name}-rectools_{peer}-{trials}.choice.json"
    write_set(prepared, task)
    command = [str(python), str(SCRIPT), "--set", str(task), "--output", str(output)]
    command += ["--settings", json.dumps(settings), "--choice", str(choice)]
    command += ["--seed", str(seed), "--trials", str(trials)]
    try:
        call_peer(command, log=folder / f"{prepared.name}-rectools_{peer}-{seed}.log")
        with np.load(output) as arrays:
            about = json.loads(str(arrays["about"]))
            return Answer({"all": arrays["lists"]}, about["settings"], about["validation"], about["trials"])
    finally:
        for file in (task, output):
            file.unlink(missing_ok=True)


def rectools_systems(python: Path | None, folder: Path) -> dict[str, System]:
    """Gives the peers by name; without an interpreter none of them fits."""

    def system(peer: str) -> System:
        needs = in_order if peer not in ("ials", "bpr") else lists_only

        def fits(prepared: Prepared) -> str:
            return needs(prepared) or (
                "" if python else "not run yet; it needs --peers-python, see make benchmark-quality-env"
            )

        def run(prepared: Prepared, seed: int, trials: int) -> Answer:
            assert python is not None  # `fits` saw to that
            return run_peer(prepared, seed, trials, peer=peer, python=python.absolute(), folder=folder)

        return System(run, fits, AXES[peer], seeded=True)

    return {f"rectools_{peer}": system(peer) for peer in AXES}
