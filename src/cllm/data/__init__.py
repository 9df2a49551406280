"""Sources → token shards → rows: text becomes hashed, memory-mapped ids and a seeded stream with a
position."""

from __future__ import annotations

from cllm.data.corpora import NAMED
from cllm.data.prepare import Prepared, open_prepared, prepare
from cllm.data.shard import Shard, ShardWriter
from cllm.data.stream import Rows, SequentialRows, Stream, bytes_of_targets, valid_targets

__all__ = [
    "NAMED",
    "Prepared",
    "Rows",
    "SequentialRows",
    "Shard",
    "ShardWriter",
    "Stream",
    "bytes_of_targets",
    "open_prepared",
    "prepare",
    "valid_targets",
]
