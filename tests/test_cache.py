from pathlib import Path

from lora_rec.cache import cache_folder as find_cache_folder


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("LORA_REC_CACHE", "~/mine")
    assert find_cache_folder() == Path.home() / "mine"
    monkeypatch.setenv("LORA_REC_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/caches")
    assert find_cache_folder() == Path("/tmp/caches/lora_rec")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert find_cache_folder() == Path.home() / ".cache" / "lora_rec"
