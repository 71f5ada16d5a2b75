// Pieces of known caches beside the batch that they must give.
#pragma once

#include <random>

#include "known_cache.h"
#include "sparselogits/piece_reader.h"

namespace sparselogits::testing {

inline constexpr int64_t kPadToken = 9;

// Rows of up to three pieces anywhere in `num_sequences` sequences of each cache, some of them
// empty.
inline Pieces RandomPieces(std::mt19937* random, size_t num_caches, int64_t num_sequences,
                           size_t num_rows) {
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>((*random)() % static_cast<uint64_t>(n));
  };
  Pieces pieces;
  pieces.row_offsets.push_back(0);
  for (size_t row = 0; row < num_rows; ++row) {
    for (int64_t i = 1 + below(3); i > 0; --i) {
      const int64_t start = below(kSequenceLength + 1);
      pieces.caches.push_back(static_cast<int32_t>(below(static_cast<int64_t>(num_caches))));
      pieces.sequences.push_back(below(num_sequences));
      pieces.starts.push_back(start);
      pieces.stops.push_back(below(3) == 0 ? -1 : start + below(kSequenceLength + 1 - start));
    }
    pieces.row_offsets.push_back(static_cast<int64_t>(pieces.caches.size()));
  }
  return pieces;
}

// The positions of a piece in its cache.
inline std::vector<size_t> PositionsOf(const Pieces& pieces, size_t piece) {
  const int64_t stop = pieces.stops[piece] < 0 ? kSequenceLength : pieces.stops[piece];
  std::vector<size_t> positions;
  for (int64_t i = pieces.starts[piece]; i < stop; ++i)
    positions.push_back(static_cast<size_t>(pieces.sequences[piece] * kSequenceLength + i));
  return positions;
}

// `contents`: of each cache.
inline void CheckPieces(const std::vector<const KnownSequences*>& contents, const Pieces& pieces,
                        const PieceBatch& batch) {
  CHECK_EQ(batch.num_rows, pieces.row_offsets.size() - 1);
  CHECK_EQ(batch.offsets.size(), batch.num_rows * batch.width + 1);
  CHECK_EQ(batch.input_ids.size(), batch.num_rows * batch.width);
  CHECK_EQ(batch.labels.size(), batch.num_rows * batch.width);
  CHECK_EQ(batch.offsets[0], int64_t{0});
  size_t entry = 0, longest = 0;
  for (size_t row = 0; row < batch.num_rows; ++row) {
    size_t cell = row * batch.width;
    for (auto piece = static_cast<size_t>(pieces.row_offsets[row]);
         piece < static_cast<size_t>(pieces.row_offsets[row + 1]); ++piece) {
      const KnownSequences& content = *contents[static_cast<size_t>(pieces.caches[piece])];
      const auto sequence = static_cast<size_t>(pieces.sequences[piece]);
      const std::vector<size_t> positions = PositionsOf(pieces, piece);
      CHECK_EQ(batch.lengths[piece], static_cast<int64_t>(positions.size()));
      CHECK_EQ(batch.infos[piece].sequence_id, content.sequence_ids[sequence]);
      for (const size_t position : positions) {
        CHECK_EQ(batch.input_ids[cell], content.input_ids[position]);
        const bool is_last = (position + 1) % kSequenceLength == 0;
        CHECK_EQ(batch.labels[cell], is_last ? kIgnoredLabel : content.input_ids[position + 1]);
        for (auto from = static_cast<size_t>(content.offsets[position]);
             from < static_cast<size_t>(content.offsets[position + 1]); ++from, ++entry) {
          CHECK_EQ(batch.token_ids[entry], content.token_ids[from]);
          CHECK_EQ(batch.weights[entry],
                   static_cast<float>(content.counts[from]) / static_cast<float>(kRounds));
        }
        CHECK_EQ(batch.offsets[++cell], static_cast<int64_t>(entry));
      }
    }
    longest = std::max(longest, cell - row * batch.width);
    for (; cell < (row + 1) * batch.width; ++cell) {
      CHECK_EQ(batch.input_ids[cell], kPadToken);
      CHECK_EQ(batch.labels[cell], kIgnoredLabel);
      CHECK_EQ(batch.offsets[cell + 1], static_cast<int64_t>(entry));
    }
  }
  CHECK_EQ(batch.width, longest);
  CHECK_EQ(batch.token_ids.size(), entry);
  CHECK_EQ(batch.weights.size(), entry);
}

}  // namespace sparselogits::testing
