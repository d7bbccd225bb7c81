"""Tables in, integer arrays out; nothing here needs torch, and pandas only where a table is read."""

from lora_rec.data.dataset import Dataset, EvaluationSet, Split, SplitReport
from lora_rec.data.filters import keep_frequent, keep_rated
from lora_rec.data.guess import guess_columns
from lora_rec.data.guess_tables import find_tables
from lora_rec.data.impressions import Impressions, ImpressionSplit, join_impressions, split_impressions
from lora_rec.data.inspect import Statistics, find_warnings, summarize
from lora_rec.data.lists import Lists
from lora_rec.data.sources import load_dataset, load_movielens_small, read_table
from lora_rec.data.splits import (
    leave_last_basket_out,
    leave_last_out,
    split_at_last_day,
    split_at_quantiles,
    split_at_time,
    split_randomly,
)
from lora_rec.data.validate import DataProblem

__all__ = [
    "DataProblem",
    "Dataset",
    "EvaluationSet",
    "ImpressionSplit",
    "Impressions",
    "Lists",
    "Split",
    "SplitReport",
    "Statistics",
    "find_tables",
    "find_warnings",
    "guess_columns",
    "join_impressions",
    "keep_frequent",
    "keep_rated",
    "leave_last_basket_out",
    "leave_last_out",
    "load_dataset",
    "load_movielens_small",
    "read_table",
    "split_at_last_day",
    "split_at_quantiles",
    "split_at_time",
    "split_impressions",
    "split_randomly",
    "summarize",
]
