"""How a stream of documents becomes windows: the choices, and what a cache says of them."""

from __future__ import annotations

from dataclasses import dataclass

from sparselogits.errors import InvalidArgumentError
from sparselogits.tokens.cuts import Cuts, DocumentCuts, EvenCuts
from sparselogits.tokens.documents import TokenDocuments
from sparselogits.tokens.marked_stream import MarkedStream

PACKINGS = ("concat", "concat-documents", "documents")
LONG_DOCUMENTS = ("split", "truncate")
BOS_PLACES = ("document", "window")


@dataclass(frozen=True)
class Packing:
    """A policy with its options; see `pack` for what they mean.

    Raises:
        InvalidArgumentError: A value is unknown, or an option has no effect with the others.
    """

    length: int
    packing: str = "concat"
    bos: int | None = None
    eos: int | None = None
    bos_at: str | None = None
    keep_short: bool | None = None
    long_documents: str | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("packing", PACKINGS),
            ("bos_at", (*BOS_PLACES, None)),
            ("long_documents", (*LONG_DOCUMENTS, None)),
        ):
            value = getattr(self, name)
            if value not in known:
                names = ", ".join(item for item in known if item is not None)
                raise InvalidArgumentError(f"{name} must be one of {names}, got {value!r}")
        shortest = 1 + self._bos_in_windows
        for name, least in (("length", shortest), ("bos", 0), ("eos", 0)):
            value = getattr(self, name)
            if value is None and name != "length":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidArgumentError(f"{name} must be an integer from {least}, got {value!r}")
        if self.bos_at is not None and self.bos is None:
            raise InvalidArgumentError(f"bos_at {self.bos_at!r} has no effect without bos")
        self._refuse("keep_short", self.packing == "documents")
        self._refuse("long_documents", self.packing != "documents")
        if self._bos_in_windows and self.packing == "concat-documents":
            raise InvalidArgumentError(
                "bos_at 'window' would leave documents inside a window without bos: with "
                "'concat-documents' it must be 'document'"
            )

    @property
    def window_bos(self) -> int | None:
        """The id that each window starts with, if any."""
        return self.bos if self._bos_in_windows else None

    @property
    def knows_documents(self) -> bool:
        """Whether it matters where documents start."""
        return self.packing != "concat" or self._document_bos is not None or self.eos is not None

    def stream(self, documents: TokenDocuments) -> MarkedStream:
        """The documents with their marks.

        Raises:
            InvalidArgumentError: A mark is outside the vocabulary.
        """
        for name, value in (("bos", self.bos), ("eos", self.eos)):
            limit = documents.vocab_size
            if value is not None and limit is not None and value >= limit:
                raise InvalidArgumentError(f"{name} {value} is outside [0, {limit})")
        return MarkedStream(documents, self._document_bos, self.eos)

    def cuts(self, stream: MarkedStream) -> Cuts:
        """Where the windows lie in the stream.

        Raises:
            InvalidArgumentError: There would be none.
        """
        content = self.length - self._bos_in_windows
        cuts: Cuts
        if self.packing == "documents":
            cuts = DocumentCuts(stream.offsets, content, self.long_documents == "truncate")
        else:
            cuts = EvenCuts(stream.num_tokens, content, bool(self.keep_short))
        if not len(cuts):
            raise InvalidArgumentError(
                f"{stream.documents.name}: {stream.num_tokens} tokens, added ones included, give "
                f"no window of {self.length} tokens"
                + ("; keep_short keeps a shorter one" if stream.num_tokens else "")
            )
        return cuts

    def description(self, stream: MarkedStream, cuts: Cuts, digest: str) -> dict[str, str]:
        """The facts of `WindowSet.description`."""
        documents = stream.documents
        restarts = self.packing == "concat-documents"
        return {
            "token_source": f"{documents.label}: {documents.num_documents:,} documents, "
            f"{documents.num_tokens:,} tokens, digest {digest}",
            "window_packing": self._cut_rule(cuts),
            "document_mask": "no attention across document starts" if restarts else "none",
            "position_ids": "from 0 in each window" + (" and document" if restarts else ""),
            "bos_rule": self._mark_rule(),
        }

    def _cut_rule(self, cuts: Cuts) -> str:
        if not isinstance(cuts, EvenCuts):
            if self.long_documents == "truncate":
                return f"documents: one a window, truncated to {self.length} tokens"
            return f"documents: one a window, split into pieces of at most {self.length} tokens"
        rule = f"{self.packing}: documents end to end, cut into windows of {self.length} tokens"
        if not cuts.left:
            return rule
        if cuts.keep_short:
            return f"{rule}, the last window is shorter"
        return f"{rule}, tokens left out at the end: {cuts.left}"

    def _mark_rule(self) -> str:
        rules = []
        if self.bos is not None:
            rules.append(f"bos {self.bos} before each {self.bos_at or 'document'}")
        if self.eos is not None:
            rules.append(f"eos {self.eos} after each document")
        return ", ".join(rules) or "none added: tokens as in the source"

    @property
    def _bos_in_windows(self) -> bool:
        return self.bos is not None and self.bos_at == "window"

    @property
    def _document_bos(self) -> int | None:
        return None if self._bos_in_windows else self.bos

    def _refuse(self, option: str, useless: bool) -> None:
        value = getattr(self, option)
        if useless and value is not None:
            raise InvalidArgumentError(
                f"{option} {value!r} has no effect with packing {self.packing!r}"
            )
