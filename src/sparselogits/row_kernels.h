// The loops over logits, compiled once for each instruction set and chosen at run time. Every
// variant gives the same bits.
#pragma once

#include <cstdint>
#include <vector>

namespace sparselogits {

// Token ids in a row of logits are looked at in tiles of this many.
inline constexpr int64_t kTile = 256;

// The masses of a tile are made in pieces of this many.
inline constexpr int64_t kTilePiece = 64;

struct RowKernels {
  const char* name;

  // The largest logit of each of some whole tiles, and the sum of its masses (piece_masses).
  // False where a logit is NaN or +infinity; what is stored is then of no use.
  bool (*tile_statistics)(const float* logits, int64_t num_tiles, float* maxima, int64_t* sums);

  // out[i] = the mass of logits[i]: e^(logits[i] - max) * 2^30 to the nearest integer, kTilePiece
  // of them. REQUIRES: max is the largest of the tile, finite or -infinity.
  void (*piece_masses)(const float* logits, float max, uint32_t* out);

  // out[i] = logits[i] / temperature * factor, each operation rounded to float32.
  void (*scale)(const float* logits, int64_t n, float temperature, float factor, float* out);

  // out[i] = the number that the bits are, exactly.
  void (*widen_float16)(const uint16_t* bits, int64_t n, float* out);
  void (*widen_bfloat16)(const uint16_t* bits, int64_t n, float* out);

  // Stores the largest of n >= 1 logits. False when one of them is NaN or +infinity.
  bool (*max)(const float* logits, int64_t n, float* max);

  // out[i] = the mass of logits[i] - max in 64 bits (ExpMass). REQUIRES: no logit is above max; max
  // is finite.
  void (*masses)(const float* logits, int64_t n, float max, int mass_bits, int64_t* out);
};

// The variants that this processor can run, the plain one first and the fastest last.
const std::vector<RowKernels>& AvailableKernels();

inline const RowKernels& BestKernels() { return AvailableKernels().back(); }

}  // namespace sparselogits
