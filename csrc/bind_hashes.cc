// Hashes, and the constants of the format that tests hold against the specification.
#include <pybind11/pybind11.h>

#include "arrays.h"
#include "bindings.h"
#include "sparselogits/compact_layout.h"
#include "sparselogits/compact_model.h"
#include "sparselogits/crc32c.h"
#include "sparselogits/limits.h"
#include "sparselogits/shard_layout.h"
#include "sparselogits/xxh64.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

py::dict CompactConstants() {
  py::dict constants;
  constants["stretch"] = compact::kStretch;
  constants["block_header_length"] = compact::kBlockHeaderLength;
  constants["start_bits"] = compact::kMaxStartBits;
  constants["model_header_length"] = kModelHeaderLength;
  constants["bytes"] = kMaxModelLength;
  constants["classes"] = compact::kMaxClasses;
  constants["buckets"] = compact::kMaxBuckets;
  constants["codes"] = compact::kMaxTables;
  constants["bucket_bits"] = compact::kMaxIdBits;
  constants["hazard"] = compact::kMaxHazard;
  constants["sum_classes"] = compact::kCountLevels;
  constants["pair_limit"] = compact::kPairLimit;
  constants["gap_classes"] = compact::kGapLevels;
  constants["hazard_zero"] = compact::kGapMiddle;
  constants["plain_values"] = kExactValues;
  return constants;
}

// (contexts, symbols, longest code) of each family of codes.
py::list CompactFamilies(uint32_t vocab_size, uint32_t rounds, bool weights, bool tokens,
                         uint32_t num_classes) {
  RecordFormat format;
  format.vocab_size = vocab_size;
  format.rounds = rounds;
  format.value_kind = weights ? ValueKind::kWeights : ValueKind::kCounts;
  format.store_tokens = tokens;
  py::list families;
  for (size_t i = 0; i < compact::kNumFamilies; ++i) {
    const compact::FamilyShape shape =
        ShapeOf(static_cast<compact::Family>(i), format, num_classes);
    families.append(py::make_tuple(shape.num_contexts, shape.num_symbols, shape.width));
  }
  return families;
}

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
  constants["compact"] = CompactConstants();
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
  module.def("compact_families", &CompactFamilies, py::arg("vocab_size"), py::arg("rounds"),
             py::arg("weights"), py::arg("tokens"), py::arg("num_classes"));
}

}  // namespace sparselogits::python
