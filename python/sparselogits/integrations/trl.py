"""SparseKDSFTTrainer: TRL's SFTTrainer that distils from a cache.

Importing this needs TRL: `pip install "sparselogits[trl]"`.
"""

from __future__ import annotations

from typing import Any

from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from sparselogits.errors import InvalidArgumentError
from sparselogits.integrations.transformers import SparseKDTrainerMixin, SparseLogitCollator


class SparseKDSFTTrainer(SparseKDTrainerMixin, SFTTrainer):
    """Supervised fine-tuning on the teacher's distributions in place of the next tokens.

    `train_dataset` is one of the kinds that SFTTrainer takes, text, prompts with completions or
    conversations; its rows carry the `sequence_id` of a sequence in the cache that was captured
    from the same tokens. `data_collator` is a `SparseLogitCollator`, which proves that they are the
    same. Where SFTTrainer leaves tokens out of the loss (prompts, `assistant_only_loss`), so do
    the targets.

    TRL's `packing` joins rows after they were captured and loses their names, and is refused. Pack
    first, capture the packed rows with the ends of their documents, and train on these: the
    collator understands their `seq_lengths`. For batches without padding, `flatten=True` of the
    collator takes the place of `padding_free`.

    Raises:
        InvalidArgumentError: A setting cannot be combined with distillation, or there is no
            `SparseLogitCollator`.
    """

    def __init__(
        self,
        model: Any,
        args: SFTConfig | None = None,
        data_collator: SparseLogitCollator | None = None,
        **kwargs: Any,
    ) -> None:
        _check(args, data_collator)
        super().__init__(model, args, data_collator, **kwargs)


def _check(args: SFTConfig | None, collator: SparseLogitCollator | None) -> None:
    if not isinstance(collator, SparseLogitCollator):
        raise InvalidArgumentError(
            f"data_collator is a {type(collator).__name__}; it must be a SparseLogitCollator"
        )
    if args is None:
        return
    if args.packing or args.eval_packing:
        raise InvalidArgumentError(
            "packing is True: rows would be joined after the teacher has read them apart; pack "
            "before the capture"
        )
    if args.loss_type not in (None, "nll"):
        raise InvalidArgumentError(
            f"loss_type is {args.loss_type!r}, which would not be computed; leave it out"
        )
    if args.padding_free:
        raise InvalidArgumentError(
            "padding_free is True, which needs TRL's own collator: use flatten=True of the "
            "SparseLogitCollator instead"
        )
