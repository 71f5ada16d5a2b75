"""Reads a remote cache from several threads, until it has read enough or is killed.

Arguments: the URL, the local directory, its bound, a seed, reads a thread. Prints what is wrong.
"""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]

from caches import assert_same  # noqa: E402
from remote_caches import SEQUENCES  # noqa: E402

import sparselogits as sl  # noqa: E402


def main(url: str, root: str, bound: str, seed: str, reads: str) -> None:
    cache = sl.open(url, local_cache=root, local_cache_bytes=int(bound), num_fetchers=3)

    def read(thread: int) -> None:
        rng = random.Random(f"{seed} {thread}")
        for _ in range(int(reads)):
            wanted = rng.sample(range(len(SEQUENCES)), 2)
            cache.prefetch([rng.randrange(len(SEQUENCES))])
            if rng.random() < 0.5:
                assert_same(cache[wanted[0]], SEQUENCES[wanted[0]])
                continue
            with cache._hold(cache._shards_of(wanted)):
                for index in wanted:
                    assert_same(cache[index], SEQUENCES[index])

    print("ready", flush=True)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(read, range(3)))
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
