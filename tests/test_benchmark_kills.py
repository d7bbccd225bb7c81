import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import kills


@pytest.mark.slow
@pytest.mark.parametrize("adapter", kills.ADAPTERS)
def test_eight_kills_at_random_moments_change_no_bit(adapter, tmp_path):
    found = kills.kill_runs(adapter, tmp_path, n_kills=8, seed=1)
    assert found.kills == 8
    assert found.runs >= 1
    assert found.equal == found.runs
    assert found.resumed >= 1


def test_a_run_that_fails_is_no_kill(tmp_path):
    def fail():
        raise ValueError("broken")

    with pytest.raises(SystemExit, match="ended with an error"):
        kills.attempt(fail, kill_after=None, log=tmp_path / "log.txt")
    assert "ValueError: broken" in (tmp_path / "log.txt").read_text()
