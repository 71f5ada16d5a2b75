"""Text and tables as a token source: gone through once, into a temporary file of ids."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.durable import io_error
from sparselogits.errors import CacheIOError, InvalidArgumentError
from sparselogits.tokens.documents import TokenDocuments
from sparselogits.tokens.rows import RowReader
from sparselogits.tokens.tokenizing import token_batches, vocabulary_of


class SpooledTokens(TokenDocuments):
    """The documents of a reader that cannot be read at random.

    The first use reads everything into a nameless temporary file (in TMPDIR, 4 bytes a token) that
    is mapped from then on. A process that gets a pickled one does so again: for many workers, write
    the ids once with `sparselogits tokenize`.

    Args:
        reader: The rows.
        tokenizer: Of text; None where rows are ids.
        vocab_size: Ids must lie below it; default: what the tokenizer knows.

    Raises:
        InvalidArgumentError: Text without a tokenizer. Later: an id is outside the vocabulary.
        CorruptionError, CacheIOError: As the reader; the temporary file cannot be written.
    """

    def __init__(
        self, reader: RowReader, tokenizer: Any = None, *, vocab_size: int | None = None
    ) -> None:
        if vocab_size is None and tokenizer is not None:
            vocab_size = vocabulary_of(tokenizer)
        super().__init__(reader.name, reader.label, vocab_size)
        if reader.holds_text and tokenizer is None:
            raise InvalidArgumentError(f"{reader.name}: holds text, which needs a tokenizer")
        self._reader = reader
        self._tokenizer = tokenizer if reader.holds_text else None
        self._offsets: npt.NDArray[np.int64] | None = None

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """See `TokenDocuments`; the first use reads, and tokenises, everything."""
        if self._offsets is None:
            self._spool()
        assert self._offsets is not None
        return self._offsets

    def _slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        return self._tokens[start:stop]

    def _spool(self) -> None:
        lengths = [np.zeros(1, np.int64)]
        try:
            # Its pages live as long as the map, so the file can be closed and needs no name.
            with tempfile.TemporaryFile(prefix="sparselogits-tokens-") as file:
                for batch in token_batches(self._reader, self._tokenizer, self.vocab_size):
                    file.write(batch.ids.data)
                    lengths.append(batch.lengths)
                file.flush()
                offsets = np.cumsum(np.concatenate(lengths), dtype=np.int64)
                self._tokens: npt.NDArray[np.uint32] = (
                    np.memmap(file, np.uint32, "r") if offsets[-1] else np.empty(0, np.uint32)
                )
        except CacheIOError:  # of the reader: it names its file
            raise
        except OSError as error:
            raise io_error(error, "cannot write tokens to", tempfile.gettempdir()) from error
        self._offsets = offsets

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__, _offsets=None)
        state.pop("_tokens", None)
        return state
