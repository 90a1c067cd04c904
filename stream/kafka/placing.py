"""Where a key belongs among the partitions of a topic: murmur2, as Kafka's Java clients place it, one or many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from aiokafka.partitioner import murmur2
from numpy.typing import NDArray

from model.history import spans

_SEED, _M = 0x9747B28C, np.uint32(0x5BD1E995)
LONG = 64
"""Bytes from which on a key is hashed by itself: the others are laid side by side, each as wide as the longest."""


@lru_cache(1 << 18)
def place(key: bytes) -> int:
    """Of one key, to be taken modulo the partitions; aiokafka computes it in Python, and users come again."""
    return murmur2(key) & 0x7FFFFFFF


def partition_of(user: str, count: int) -> int:
    """The partition of a user among so many."""
    return place(user.encode()) % count


def placed(keys: Sequence[bytes], partitions: int) -> NDArray[np.int64]:
    """i64[n]: the partition of each key among so many."""
    return (hashed(keys).astype(np.int64) & 0x7FFFFFFF) % partitions


def hashed(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """u32[n]: murmur2 of each key (Austin Appleby's MurmurHash2 with the seed of Kafka's `Utils.murmur2`)."""
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    if len(keys) and lengths.max() >= LONG:
        long = np.flatnonzero(lengths >= LONG)
        short = np.flatnonzero(lengths < LONG)
        out = np.empty(len(keys), np.uint32)
        out[short] = hashed([keys[i] for i in short.tolist()])
        out[long] = [murmur2(keys[i]) & 0xFFFFFFFF for i in long.tolist()]
        return out
    whole, rest = lengths // 4, lengths % 4
    width = int(whole.max(initial=0)) + 1
    padded = np.zeros((len(keys), 4 * width), np.uint8)
    flat = spans(np.arange(len(keys)) * 4 * width, lengths)
    padded.ravel()[flat] = np.frombuffer(b"".join(keys), np.uint8)
    words = padded.view("<u4")
    h = np.uint32(_SEED) ^ lengths.astype(np.uint32)
    for i in range(width - 1):
        k = words[:, i] * _M
        k = (k ^ (k >> np.uint32(24))) * _M
        h = np.where(whole > i, (h * _M) ^ k, h)
    # What is left of a key is its last word, since what follows it is zero.
    tail = words[np.arange(len(keys)), whole]
    h = np.where(rest > 0, (h ^ tail) * _M, h)
    h = (h ^ (h >> np.uint32(13))) * _M
    return h ^ (h >> np.uint32(15))
