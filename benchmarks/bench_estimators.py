"""The error of systematic draws against that of i.i.d. draws of the same real teacher rows.

With w = counts / N the loss gradient errs by p - w, so Σ Var(w_i) is what counts. Both samples are
unbiased and independent of each other, which gives their errors without knowing p:

    multinomial:  Σ Var(w_i) = (1 - Σ p_i²) / N, and Σ c_i (c_i - 1) / (N (N - 1)) estimates Σ p_i²
    systematic:   E |w_m - w_s|² = Σ Var(w_m) + Σ Var(w_s)

Needs `shared/data` beside the checkout. Figures of README.md and docs/sampling.md.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import numpy.typing as npt
from samples import DATA, Sample, load_samples

PAIR = ("multinomial50-sharp", "systematic18-sharp")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    samples = {sample.name: sample for sample in load_samples()}
    if not all(name in samples for name in PAIR):
        raise SystemExit(f"{DATA} does not hold the samples {' and '.join(PAIR)}")
    iid, systematic = (samples[name] for name in PAIR)
    assert np.array_equal(iid.tokens, systematic.tokens), "not the same teacher rows"
    of_iid = iid_error(iid)
    of_systematic = squared_distance(iid, systematic) - of_iid
    result = {
        PAIR[0]: {"ids": iid.ids_per_position, "squared_error": of_iid},
        PAIR[1]: {"ids": systematic.ids_per_position, "squared_error": of_systematic},
    }
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for name, row in result.items():
        print(f"{name:<22}{row['ids']:>6.1f} ids a position, Σ Var(w) = {row['squared_error']:.5f}")


def iid_error(sample: Sample) -> float:
    """Σ Var(w_i) of N i.i.d. draws, mean over positions."""
    pairs = (sample.counts * (sample.counts - 1)).sum() / sample.num_positions
    return float((1 - pairs / (sample.rounds * (sample.rounds - 1))) / sample.rounds)


def squared_distance(a: Sample, b: Sample) -> float:
    """|w_a - w_b|², mean over positions."""
    keys_a, keys_b = keys(a), keys(b)
    weights_a, weights_b = a.counts / a.rounds, b.counts / b.rounds
    _, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    product = (weights_a[at_a] * weights_b[at_b]).sum()
    squares = (weights_a**2).sum() + (weights_b**2).sum()
    return float((squares - 2 * product) / a.num_positions)


def keys(sample: Sample) -> npt.NDArray[np.int64]:
    """One number for each (position, token_id)."""
    rows = np.repeat(np.arange(sample.num_positions), np.diff(sample.offsets))
    return (rows << 24) | sample.token_ids


if __name__ == "__main__":
    main()
