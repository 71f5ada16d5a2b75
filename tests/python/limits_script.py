"""Run as a program by test_concurrency.py: caches beside the limits of the system.

Usage: limits_script.py PATH many           64 open caches with 256 descriptors
       limits_script.py PATH maps           no maps left
       limits_script.py PATH address_space  a shard larger than the address space left
"""

from __future__ import annotations

import mmap
import os
import resource
import sys
from pathlib import Path

from held import mapped_shards

import sparselogits as sl


def many(path: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    caches = [sl.open(path) for _ in range(64)]
    for cache in caches:
        for index in (0, len(cache) // 2, len(cache) - 1):
            assert cache[index].sequence_id == index
    print("maps", len(mapped_shards()), "descriptors", len(os.listdir("/proc/self/fd")) - 1)


def maps(path: str) -> None:
    most = int(Path("/proc/sys/vm/max_map_count").read_text())
    # Neighbours with other rights do not become one map.
    rights = (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE)
    left = most - len(Path("/proc/self/maps").read_text().splitlines()) - 40
    taken = [mmap.mmap(-1, mmap.PAGESIZE, prot=rights[i % 2]) for i in range(left)]
    try:
        sl.open(path)
    except sl.CacheIOError as error:
        print(error)
    print("shards left mapped", len(mapped_shards()))
    del taken


def address_space(path: str) -> None:
    shard = next(Path(path).glob("*.slc"))
    os.truncate(shard, 8 << 30)  # sparse
    used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
    try:
        sl.open(path)
    except sl.CacheIOError as error:
        print(error)


if __name__ == "__main__":
    {"many": many, "maps": maps, "address_space": address_space}[sys.argv[2]](sys.argv[1])
