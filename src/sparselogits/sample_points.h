// Where a sampler looks into the cumulative mass of a row: `rounds` integers in [0, total).
#pragma once

#include <bit>
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

// Sorts numbers that are evenly spread over [0, kUniformLimit): into about as many buckets as there
// are numbers, then by insertion. Memory is reused from call to call.
class UniformSorter {
 public:
  void Sort(std::vector<uint64_t>& uniforms) {
    const int bits = static_cast<int>(std::bit_width(uniforms.size()));
    const auto bucket = [bits](uint64_t uniform) { return uniform >> (62 - bits); };
    ends_.assign((size_t{1} << bits) + 1, 0);
    for (const uint64_t uniform : uniforms) ++ends_[bucket(uniform) + 1];
    for (size_t i = 1; i < ends_.size(); ++i) ends_[i] += ends_[i - 1];
    spread_.resize(uniforms.size());
    for (const uint64_t uniform : uniforms) spread_[ends_[bucket(uniform)]++] = uniform;
    for (size_t i = 0; i < spread_.size(); ++i) {
      const uint64_t uniform = spread_[i];
      size_t place = i;
      for (; place > 0 && uniforms[place - 1] > uniform; --place) {
        uniforms[place] = uniforms[place - 1];
      }
      uniforms[place] = uniform;
    }
  }

 private:
  std::vector<uint32_t> ends_;
  std::vector<uint64_t> spread_;
};

// Makes the points of one row after the other, in memory that is reused.
class PointMaker {
 public:
  // Points in ascending order, until the next call. `offset` is added to every uniform, modulo
  // kUniformLimit. REQUIRES: rounds >= 1, 0 < total < 2^62.
  //
  // Stratum j begins at j total / rounds. With total = a rounds + b, floor((j total + U) / rounds)
  // is j a + floor((j b + U) / rounds), which stays within 64 bits. Rounding a point down to an
  // integer keeps it on the same side of every cumulative mass, since those are integers.
  //
  // So the points of kSystematic are floor((j + u) total / rounds) exactly, and those of u and
  // u + 1/2 together are the points of 2 rounds and the uniform 2 u.
  const std::vector<int64_t>& Make(SamplerKind kind, int rounds, int64_t total,
                                   PositionUniforms uniforms, uint64_t offset) {
    uniforms_.resize(kind == SamplerKind::kSystematic ? 1 : static_cast<size_t>(rounds));
    for (size_t draw = 0; draw < uniforms_.size(); ++draw) {
      uniforms_[draw] = (uniforms.Draw(static_cast<uint32_t>(draw)) + offset) % kUniformLimit;
    }
    // Scaling keeps the order: independent draws are sorted before it, while they are spread
    // evenly.
    if (kind == SamplerKind::kMultinomial) sorter_.Sort(uniforms_);
    points_.resize(static_cast<size_t>(rounds));
    const int64_t a = total / rounds;
    const int64_t b = total % rounds;
    for (int64_t j = 0; j < rounds; ++j) {
      const size_t draw = kind == SamplerKind::kSystematic ? 0 : static_cast<size_t>(j);
      const int64_t point = ScaleUniform(uniforms_[draw], total);
      points_[static_cast<size_t>(j)] =
          kind == SamplerKind::kMultinomial ? point : j * a + (j * b + point) / rounds;
    }
    return points_;
  }

 private:
  UniformSorter sorter_;
  std::vector<uint64_t> uniforms_;
  std::vector<int64_t> points_;
};

}  // namespace sparselogits
