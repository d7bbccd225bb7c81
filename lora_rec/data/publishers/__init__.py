"""Published data sets, read from the publishers' own files or downloaded first."""

from lora_rec.data.publishers.amazon import load_amazon_2023, read_amazon, read_amazon_2023
from lora_rec.data.publishers.lastfm import read_lastfm
from lora_rec.data.publishers.load import PUBLISHERS, load_published
from lora_rec.data.publishers.mind import read_mind
from lora_rec.data.publishers.movielens import read_movielens
from lora_rec.data.publishers.online_retail import read_online_retail
from lora_rec.data.publishers.published import Download, Published, Publisher

__all__ = [
    "PUBLISHERS",
    "Download",
    "Published",
    "Publisher",
    "load_amazon_2023",
    "load_published",
    "read_amazon",
    "read_amazon_2023",
    "read_lastfm",
    "read_mind",
    "read_movielens",
    "read_online_retail",
]
