// Where a sampler looks into the cumulative mass of a row: `rounds` integers in [0, total).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sparselogits/philox.h"

namespace sparselogits {

enum class SamplerKind {
  kMultinomial,  // independent draws
  kSystematic,   // one uniform a position: points at distance total / rounds
  kStratified,   // one uniform in each of `rounds` equal strata
};

// floor(uniform / 2^62 * total), exactly. REQUIRES: uniform < 2^62, 0 <= total < 2^62.
inline int64_t ScaleUniform(uint64_t uniform, int64_t total) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<int64_t>(Wide{uniform} * static_cast<uint64_t>(total) >> 62);
}

// One more than the largest uniform.
inline constexpr uint64_t kUniformLimit = uint64_t{1} << 62;

// Fills points in ascending order. `offset` is added to every uniform, modulo kUniformLimit.
// REQUIRES: rounds >= 1, 0 < total < 2^62.
//
// Stratum j begins at j total / rounds. With total = a rounds + b, floor((j total + U) / rounds)
// is j a + floor((j b + U) / rounds), which stays within 64 bits. Rounding a point down to an
// integer keeps it on the same side of every cumulative mass, since those are integers.
//
// So the points of kSystematic are floor((j + u) total / rounds) exactly, and those of u and u +
// 1/2 together are the points of 2 rounds and the uniform 2 u.
inline void FillPoints(SamplerKind kind, int rounds, int64_t total, PositionUniforms uniforms,
                       uint64_t offset, std::vector<int64_t>& points) {
  points.resize(static_cast<size_t>(rounds));
  const int64_t a = total / rounds;
  const int64_t b = total % rounds;
  for (int64_t j = 0; j < rounds; ++j) {
    const uint32_t draw = kind == SamplerKind::kSystematic ? 0 : static_cast<uint32_t>(j);
    const uint64_t uniform = (uniforms.Draw(draw) + offset) % kUniformLimit;
    const int64_t point = ScaleUniform(uniform, total);
    points[static_cast<size_t>(j)] =
        kind == SamplerKind::kMultinomial ? point : j * a + (j * b + point) / rounds;
  }
  if (kind == SamplerKind::kMultinomial) std::sort(points.begin(), points.end());
}

}  // namespace sparselogits
