// Hashes, and the constants of the format that tests hold against the specification.
#include <pybind11/pybind11.h>

#include "arrays.h"
#include "bindings.h"
#include "sparselogits/crc32c.h"
#include "sparselogits/limits.h"
#include "sparselogits/shard_layout.h"
#include "sparselogits/xxh64.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

py::dict FormatConstants() {
  py::dict constants;
  constants["version"] = py::make_tuple(kVersionMajor, kVersionMinor);
  constants["header_length"] = kHeaderLength;
  constants["frame_header_length"] = kFrameHeaderLength;
  constants["commit_length"] = kCommitLength;
  constants["footer_length"] = kFooterLength;
  constants["known_incompatible_features"] = kKnownIncompatibleFeatures;
  constants["stretch_positions"] = kStretchPositions;
  py::dict limits;
  limits["vocab_size"] = kMaxVocabSize;
  limits["rounds"] = kMaxRounds;
  limits["entries_per_record"] = kMaxEntriesPerRecord;
  limits["block_positions"] = uint64_t{1} << kMaxBlockLog2;
  limits["positions_per_shard"] = kMaxPositionsPerShard;
  limits["sequences_per_shard"] = kMaxSequencesPerShard;
  limits["entries_per_shard"] = kMaxEntriesPerShard;
  limits["entries_per_block"] = kMaxEntriesPerBlock;
  limits["sequences_per_frame"] = kMaxSequencesPerFrame;
  limits["block_length"] = kMaxBlockLength;
  limits["frame_length"] = kMaxFrameLength;
  limits["shard_length"] = kMaxShardLength;
  limits["metadata_length"] = kMaxMetadataLength;
  constants["limits"] = limits;
  return constants;
}

}  // namespace

void BindHashes(py::module_& module) {
  module.def(
      "fingerprint_tokens",
      [](const InputArray<uint32_t>& ids) { return FingerprintTokens(Span(ids)); },
      py::arg("ids").noconvert());
  module.def("xxh64", [](const py::bytes& data) { return Xxh64(View(data)); }, py::arg("data"));
  module.def("crc32c", [](const py::bytes& data) { return Crc32c(View(data)); }, py::arg("data"));
  module.def("format_constants", &FormatConstants);
}

}  // namespace sparselogits::python
