"""`sample` where every rank has the logits of a part of the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from sparselogits import checks
from sparselogits.errors import InvalidArgumentError
from sparselogits.limits import MAX_VOCAB_SIZE
from sparselogits.sampling import Draws, check_keys, check_logits, check_options
from sparselogits.sampling_torch.compaction import compact
from sparselogits.sampling_torch.points import counter_words
from sparselogits.sampling_torch.refusal import RowExtreme, extreme_of, joined, refuse
from sparselogits.sampling_torch.shards import draw_plain, draw_with_proposal
from sparselogits.torch.vocab_shards import Shard, VocabShards, agree, digest


@torch.no_grad()
def sample_vocab_parallel(
    local_logits: torch.Tensor,
    vocab_start: int,
    vocab_size: int,
    group: dist.ProcessGroup | None = None,
    *,
    rounds: int = 50,
    sampler: str = "multinomial",
    temperature: float = 1.0,
    proposal_temperature: float = 1.0,
    seed: int = 0,
    position_keys: Any = None,
    offset: float = 0.0,
    self_normalize: bool = False,
) -> Draws[torch.Tensor]:
    """Draws what `sparselogits.sample` draws from whole rows; every rank gets all the draws.

    A collective: all ranks of the group call it with equal arguments, except for the first two.
    What crosses between them: a few integers that say who holds what; three numbers a row, twice
    (the ranks' maxima and masses, and those of tiles that a border of a shard cuts); and the drawn
    ids, `rounds` int32 a row (with a proposal, also `rounds` float64). The logits do not. The host
    waits for the device twice, at the start for who holds what and at the end for the sizes.

    Args:
        local_logits: (P, columns), the columns `vocab_start` to `vocab_start + columns` of P rows,
            on any device that the group can communicate from. A rank has at least one column.
            Leave out columns that only fill up the head.
        vocab_start: Token id of the first column.
        vocab_size: Tokens of the whole vocabulary. The shards of all ranks make it up without gaps
            and overlaps, in any order and of any sizes.
        group: The process group; None: the default one.
        rounds: As for `sample`, as is everything below.
        sampler: See `sample`.
        temperature: See `sample`.
        proposal_temperature: See `sample`.
        seed: See `sample`.
        position_keys: See `sample`; the same on every rank.
        offset: See `sample`.
        self_normalize: See `sample`.

    Returns:
        The draws of whole rows, on the device of the logits.

    Raises:
        InvalidArgumentError: On every rank, also when the cause lies with one of them: an argument
            is out of range or differs, the shards do not make up the vocabulary, or a row cannot
            be sampled. The message names the row and the column of the whole vocabulary.
    """
    local_logits = local_logits.detach()
    try:
        checks.integer("vocab_start", vocab_start, 0, MAX_VOCAB_SIZE)
        checks.integer("vocab_size", vocab_size, 1, MAX_VOCAB_SIZE)
        check_logits(tuple(local_logits.shape), str(local_logits.dtype).removeprefix("torch."))
        options = check_options(
            rounds=rounds,
            sampler=sampler,
            temperature=temperature,
            proposal_temperature=proposal_temperature,
            seed=seed,
            offset=offset,
            self_normalize=self_normalize,
            num_threads=None,
        )
        keys = check_keys(position_keys, len(local_logits))
        rows, columns = local_logits.shape
        common = digest(options, keys.tobytes())
        shard: Shard | InvalidArgumentError = Shard(vocab_start, columns, rows, vocab_size, common)
    except InvalidArgumentError as error:
        shard = error
    shards = agree(shard, local_logits.device, group, "the options and position_keys")
    draw = draw_with_proposal if options.weighted else draw_plain
    words = counter_words(keys, local_logits.device)
    drawn = [draw(local_logits, words, options, shards)] if len(keys) else []
    draws = compact(drawn, options, local_logits.device)
    if isinstance(draws, int):
        refuse(draws, _extreme_of_row(local_logits[draws], shards), options)
    return draws


def _extreme_of_row(row: torch.Tensor, shards: VocabShards) -> RowExtreme:
    extreme = extreme_of(row)
    mine = [float(extreme.column + shards.grid.start), extreme.value]
    everyones = shards.gather(torch.tensor(mine, dtype=torch.float64, device=row.device))
    return joined([RowExtreme(int(column), value) for column, value in map(list, everyones)])
