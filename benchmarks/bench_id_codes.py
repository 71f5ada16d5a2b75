"""Bytes a position of the ways to store ids and counts that were weighed for `packed`.

The table of docs/decisions/0002-elias-fano-in-packed.md: computed lengths of the records alone,
without directory, checksums and index.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from samples import VOCAB_SIZE, Sample, load_samples

_ID_BITS = (VOCAB_SIZE - 1).bit_length()


def main() -> None:
    print(f"{'sample':<22}{'fixed, gamma':>16}{'fixed, partition':>18}{'Elias-Fano, gamma':>19}")
    for sample in load_samples():
        gamma = gamma_bits(sample.counts)
        fixed = _ID_BITS * len(sample.counts)
        # Ordered by count, the ones at the end follow from N: one bit says where they begin.
        partition = gamma[sample.counts > 1].sum() + sample.num_positions
        bits = (fixed + gamma.sum(), fixed + partition, elias_fano_bits(sample) + gamma.sum())
        sizes = [total / 8 / sample.num_positions for total in bits]
        print(f"{sample.name:<22}{sizes[0]:>16.1f}{sizes[1]:>18.1f}{sizes[2]:>19.1f}")


def gamma_bits(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Lengths of the gamma codes."""
    return 2 * np.floor(np.log2(values)).astype(np.int64) + 1


def elias_fano_bits(sample: Sample) -> int:
    """With the best width of the low parts for the whole sample."""
    last = sample.token_ids[sample.offsets[1:] - 1]
    return min(
        int(len(sample.token_ids) * (low + 1) + (last >> low).sum()) for low in range(_ID_BITS)
    )


if __name__ == "__main__":
    main()
