#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "check.h"
#include "sparselogits/exp_mass.h"
#include "sparselogits/half.h"
#include "sparselogits/row_kernels.h"
#include "sparselogits/sampler.h"
#include "sparselogits/tile_row.h"

namespace sparselogits {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> RandomLogits(int64_t n, float scale, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<float> logits(static_cast<size_t>(n));
  for (float& x : logits) {  // sums of words: the same on every standard library
    int64_t sum = 0;
    for (int i = 0; i < 8; ++i) sum += static_cast<int64_t>(generator() >> 8) - (1 << 23);
    x = scale * static_cast<float>(sum) / (1 << 23);
  }
  return logits;
}

std::vector<PositionKey> Keys(int64_t n) {
  std::vector<PositionKey> keys;
  for (int64_t i = 0; i < n; ++i) keys.push_back({5, static_cast<uint64_t>(i)});
  return keys;
}

LogitRows Rows(const std::vector<float>& logits, int64_t num_rows) {
  const auto columns = static_cast<int64_t>(logits.size()) / num_rows;
  return {logits.data(), LogitDtype::kFloat32, num_rows, columns, columns};
}

std::string Refusal(std::vector<float> logits, int64_t num_rows,
                    const SampleOptions& options = {}) {
  Draws draws;
  const Status status = Sample(Rows(logits, num_rows), Keys(num_rows).data(), options, &draws);
  CHECK(status.code() == StatusCode::kInvalidArgument);
  return status.message();
}

TEST(exp_mass_is_the_exponential_to_one_float32_rounding) {
  const int mass_bits = MassBits(49152);
  CHECK_EQ(mass_bits, 45);
  CHECK_EQ(ExpMass(0.0f, mass_bits), int64_t{1} << mass_bits);
  double worst = 0;
  double sum = 0;
  int steps = 0;
  for (float d = 0; d > -12; d -= 0.000731f, ++steps) {
    const double exact = std::exp(static_cast<double>(d)) * 0x1p45;
    const double error = static_cast<double>(ExpMass(d, mass_bits)) / exact - 1;
    worst = std::max(worst, std::abs(error));
    sum += error;
  }
  CHECK(worst < 6e-8);
  CHECK(std::abs(sum / steps) < 2e-9);
}

TEST(exp_mass_ends_at_zero) {
  for (const int64_t n : {int64_t{1}, int64_t{2}, int64_t{49152}, kMaxSampledVocabulary}) {
    CHECK_EQ(ExpMass(BoundDifference(-kInfinity), MassBits(n)), 0);
    CHECK_EQ(ExpMass(BoundDifference(-43.5f), MassBits(n)), 0);
    CHECK(static_cast<double>(n) * static_cast<double>(ExpMass(0.0f, MassBits(n))) <= 0x1p61);
  }
}

TEST(scaled_exp_is_the_exponential_to_two_float32_roundings) {
  CHECK_EQ(ScaledExp(0.0f), 0x1p30f);
  double worst = 0;
  for (float d = 0; d > -21; d -= 0.000731f) {
    const double exact = std::exp(static_cast<double>(d)) * 0x1p30;
    worst = std::max(worst, std::abs(static_cast<double>(ScaledExp(d)) / exact - 1));
  }
  CHECK(worst < 1.2e-7);
  CHECK(ScaledExp(BoundDifference(-kInfinity)) < 0.5f);
}

TEST(all_instruction_sets_give_the_same_bits) {
  const RowKernels& plain = AvailableKernels().front();
  for (const int64_t n : {1, 7, 31, 32, 33, 255, 256, 257, 4099}) {
    std::vector<float> logits = RandomLogits(n, 6, static_cast<unsigned>(n));
    if (n > 7) logits[3] = -kInfinity;
    const auto size = static_cast<size_t>(n);
    float plain_max = 0;
    CHECK(plain.max(logits.data(), n, &plain_max));
    std::vector<int64_t> plain_masses(size);
    plain.masses(logits.data(), n, plain_max, 45, plain_masses.data());
    std::vector<float> plain_scaled(size);
    plain.scale(logits.data(), n, 0.7f, 1.3f, plain_scaled.data());
    for (const RowKernels& kernels : AvailableKernels()) {
      float max = 0;
      CHECK(kernels.max(logits.data(), n, &max));
      CHECK_EQ(max, plain_max);
      std::vector<int64_t> masses(size);
      kernels.masses(logits.data(), n, max, 45, masses.data());
      CHECK(masses == plain_masses);
      std::vector<float> scaled(size);
      kernels.scale(logits.data(), n, 0.7f, 1.3f, scaled.data());
      CHECK(scaled == plain_scaled);
    }
  }
}

TEST(all_instruction_sets_give_the_same_tiles) {
  constexpr int64_t kTiles = 7;
  std::vector<float> logits = RandomLogits(kTiles * kTile, 6, 1);
  std::fill_n(logits.begin() + 2 * kTile, kTile, -kInfinity);
  std::fill_n(logits.begin() + 3 * kTile, kTile, std::numeric_limits<float>::lowest());
  std::fill_n(logits.begin() + 4 * kTile, kTile, 1e30f);
  logits[5 * kTile + 200] = 1e30f;
  logits[6 * kTile + 255] = -kInfinity;
  const RowKernels& plain = AvailableKernels().front();
  std::vector<float> plain_maxima(kTiles);
  std::vector<int64_t> plain_sums(kTiles);
  CHECK(plain.tile_statistics(logits.data(), kTiles, plain_maxima.data(), plain_sums.data()));
  CHECK_EQ(plain_sums[2], 0);
  CHECK_EQ(plain_sums[3], kTile << 30);
  CHECK_EQ(plain_sums[5], int64_t{1} << 30);
  for (const RowKernels& kernels : AvailableKernels()) {
    std::vector<float> maxima(kTiles);
    std::vector<int64_t> sums(kTiles);
    CHECK(kernels.tile_statistics(logits.data(), kTiles, maxima.data(), sums.data()));
    CHECK(maxima == plain_maxima);
    CHECK(sums == plain_sums);
    for (int64_t tile = 0; tile < kTiles; ++tile) {
      int64_t sum = 0;
      for (int64_t start = tile * kTile; start < (tile + 1) * kTile; start += kTilePiece) {
        uint32_t masses[kTilePiece], plain_masses[kTilePiece];
        const float max = maxima[static_cast<size_t>(tile)];
        kernels.piece_masses(logits.data() + start, max, masses);
        plain.piece_masses(logits.data() + start, max, plain_masses);
        CHECK(std::equal(masses, masses + kTilePiece, plain_masses));
        for (const uint32_t mass : masses) sum += mass;
      }
      CHECK_EQ(sum, sums[static_cast<size_t>(tile)]);
    }
  }
}

TEST(tile_statistics_refuse_nan_and_infinity_at_any_place) {
  for (const RowKernels& kernels : AvailableKernels()) {
    for (const float other : {1.0f, -kInfinity}) {
      for (size_t place = 0; place < 3 * kTile; ++place) {
        for (const float bad : {kNaN, -kNaN, kInfinity}) {
          std::vector<float> logits(3 * kTile, other);
          logits[place] = bad;
          float maxima[3];
          int64_t sums[3];
          CHECK(!kernels.tile_statistics(logits.data(), 3, maxima, sums));
        }
      }
    }
  }
}

TEST(widening_is_exact_for_every_bit_pattern) {
  std::vector<uint16_t> bits(1 << 16);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  for (const RowKernels& kernels : AvailableKernels()) {
    std::vector<float> halves(bits.size()), brains(bits.size());
    kernels.widen_float16(bits.data(), 1 << 16, halves.data());
    kernels.widen_bfloat16(bits.data(), 1 << 16, brains.data());
    for (uint32_t i = 0; i < bits.size(); ++i) {
      CHECK_EQ(std::bit_cast<uint32_t>(halves[i]), std::bit_cast<uint32_t>(Float16ToFloat(i)));
      CHECK_EQ(std::bit_cast<uint32_t>(brains[i]), i << 16);
    }
  }
}

// The only bias there is: 1e-7 of the mass may lie on other tokens than it should.
TEST(total_variation_of_the_masses_is_below_1e_7) {
  for (const int64_t n : {100, 49152, 131072}) {
    for (const float scale : {0.3f, 1.0f, 3.0f, 6.0f}) {
      const std::vector<float> logits = RandomLogits(n, scale, 7);
      const LogitRow row_of_logits = [&] {
        LogitRow row(LogitDtype::kFloat32, n, 1.0f, 1.0f);
        row.Point(logits.data());
        return row;
      }();
      TileRow row(row_of_logits);
      CHECK_OK(row.Load(0));
      const double max = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
      double normaliser = 0;
      for (const float x : logits) normaliser += std::exp(static_cast<double>(x) - max);
      double distance = 0, drawn = 0;
      for (int64_t i = 0; i < n; ++i) {
        uint32_t masses[kTilePiece];
        if (i % kTilePiece == 0) row.PieceMasses(i / kTile, i % kTile, masses);
        const double q = row.Probability(i / kTile, masses[i % kTilePiece]);
        const double p = std::exp(static_cast<double>(logits[static_cast<size_t>(i)]) - max);
        distance += std::abs(p / normaliser - q) / 2;
        drawn += q;
      }
      CHECK(std::abs(drawn - 1) < 1e-12);
      CHECK(distance < 1e-7);
    }
  }
}

TEST(max_refuses_nan_and_infinity_at_any_place) {
  for (const RowKernels& kernels : AvailableKernels()) {
    for (const int64_t n : {1, 32, 77}) {
      for (int64_t place = 0; place < n; ++place) {
        for (const float bad : {kNaN, -kNaN, kInfinity}) {
          std::vector<float> logits(static_cast<size_t>(n), 1.0f);
          logits[static_cast<size_t>(place)] = bad;
          float max;
          CHECK(!kernels.max(logits.data(), n, &max));
        }
      }
    }
  }
}

TEST(scaled_uniforms_cover_the_total) {
  const uint64_t last = (uint64_t{1} << 62) - 1;
  for (const int64_t total : {int64_t{1}, int64_t{3}, (int64_t{1} << 61) + 12345}) {
    CHECK_EQ(ScaleUniform(0, total), 0);
    CHECK_EQ(ScaleUniform(last, total), total - 1);
  }
}

TEST(uniforms_are_sorted) {
  UniformSorter sorter;
  std::mt19937_64 generator(1);
  for (const size_t n : {1u, 2u, 3u, 50u, 63u, 64u, 1000u, 65535u}) {
    std::vector<uint64_t> uniforms(n);
    for (uint64_t& uniform : uniforms) uniform = generator() % kUniformLimit;
    uniforms.front() = kUniformLimit - 1;
    uniforms.back() = 0;
    std::vector<uint64_t> expected = uniforms;
    std::sort(expected.begin(), expected.end());
    sorter.Sort(uniforms);
    CHECK(uniforms == expected);
    std::fill(uniforms.begin(), uniforms.end(), kUniformLimit / 3);
    sorter.Sort(uniforms);
    CHECK(uniforms == std::vector<uint64_t>(n, kUniformLimit / 3));
  }
}

TEST(points_are_sorted_and_one_in_each_stratum) {
  PointMaker maker;
  const int64_t total = (int64_t{1} << 61) - 987654321;
  for (const int rounds : {1, 2, 7, 50, 65535}) {
    for (const SamplerKind kind :
         {SamplerKind::kMultinomial, SamplerKind::kSystematic, SamplerKind::kStratified}) {
      const std::vector<int64_t> points =
          maker.Make(kind, rounds, total, PositionUniforms(1, 2, 3), 0);
      CHECK_EQ(points.size(), static_cast<size_t>(rounds));
      CHECK(std::is_sorted(points.begin(), points.end()));
      CHECK(points.front() >= 0 && points.back() < total);
      if (kind == SamplerKind::kMultinomial) continue;
      for (int64_t j = 0; j < rounds; ++j) {
        __extension__ using Wide = __int128;
        const Wide scaled = Wide{points[static_cast<size_t>(j)]} * rounds;
        CHECK(scaled + rounds > Wide{j} * total && scaled < Wide{j + 1} * total);
      }
    }
  }
}

TEST(points_of_complementary_offsets_are_those_of_more_rounds) {
  const int64_t total = (int64_t{1} << 61) - 987654321;
  for (const uint64_t parts : {2u, 4u}) {
    for (const int rounds : {1, 7, 24, 50}) {
      for (uint64_t position = 0; position < 50; ++position) {
        const PositionUniforms uniforms(1, 2, position);
        std::vector<int64_t> joined;
        PointMaker maker;
        for (uint64_t part = 0; part < parts; ++part) {
          const uint64_t offset = part * (kUniformLimit / parts);
          const std::vector<int64_t> points =
              maker.Make(SamplerKind::kSystematic, rounds, total, uniforms, offset);
          joined.insert(joined.end(), points.begin(), points.end());
        }
        std::sort(joined.begin(), joined.end());
        // floor((j + parts * u mod 1) total / (parts * rounds)), in integers.
        __extension__ using Wide = unsigned __int128;
        const uint64_t uniform = PositionUniforms(1, 2, position).Draw(0) * parts % kUniformLimit;
        const uint64_t all = parts * static_cast<uint64_t>(rounds);
        for (uint64_t j = 0; j < all; ++j) {
          const Wide within = Wide{uniform} * static_cast<uint64_t>(total) >> 62;
          const Wide point = (Wide{j} * static_cast<uint64_t>(total) + within) / all;
          CHECK_EQ(joined[j], static_cast<int64_t>(point));
        }
      }
    }
  }
}

TEST(half_precision_draws_are_those_of_the_widened_logits) {
  constexpr int64_t kRows = 5, kColumns = 777;
  std::vector<uint16_t> bits(kRows * kColumns);
  std::vector<float> halves(bits.size()), brains(bits.size());
  std::mt19937 generator(3);
  for (size_t i = 0; i < bits.size(); ++i) {
    bits[i] = static_cast<uint16_t>(generator());
    if ((bits[i] & 0x7C00) == 0x7C00) bits[i] = 0xFC00;  // no NaN, no infinity but -infinity
    halves[i] = Float16ToFloat(bits[i]);
  }
  std::vector<uint16_t> brain_bits(bits);
  for (size_t i = 0; i < bits.size(); ++i) {
    brain_bits[i] = static_cast<uint16_t>(0x3F00 + generator() % 0x200);
    brains[i] = std::bit_cast<float>(uint32_t{brain_bits[i]} << 16);
  }
  const std::vector<PositionKey> keys = Keys(kRows);
  for (const float temperature : {1.0f, 0.7f}) {
    for (const float proposal_temperature : {1.0f, 0.8f}) {
      SampleOptions options;
      options.temperature = temperature;
      options.proposal_temperature = proposal_temperature;
      const auto draw = [&](const void* logits, LogitDtype dtype) {
        Draws draws;
        CHECK_OK(Sample({logits, dtype, kRows, kColumns, kColumns}, keys.data(), options, &draws));
        return draws;
      };
      const auto same = [](const Draws& a, const Draws& b) {
        return a.offsets == b.offsets && a.token_ids == b.token_ids && a.counts == b.counts &&
               a.weights == b.weights;
      };
      CHECK(
          same(draw(bits.data(), LogitDtype::kFloat16), draw(halves.data(), LogitDtype::kFloat32)));
      CHECK(same(draw(brain_bits.data(), LogitDtype::kBfloat16),
                 draw(brains.data(), LogitDtype::kFloat32)));
    }
  }
}

TEST(draws_do_not_depend_on_threads) {
  const int64_t num_rows = 37;
  const std::vector<float> logits = RandomLogits(num_rows * 1000, 3, 1);
  const std::vector<PositionKey> keys = Keys(num_rows);
  for (const float proposal_temperature : {1.0f, 0.8f}) {
    SampleOptions options;
    options.proposal_temperature = proposal_temperature;
    Draws expected;
    CHECK_OK(Sample(Rows(logits, num_rows), keys.data(), options, &expected));
    for (const int num_threads : {2, 3, 64}) {
      options.num_threads = num_threads;
      Draws draws;
      CHECK_OK(Sample(Rows(logits, num_rows), keys.data(), options, &draws));
      CHECK(draws.offsets == expected.offsets);
      CHECK(draws.token_ids == expected.token_ids);
      CHECK(draws.counts == expected.counts);
      CHECK(draws.weights == expected.weights);
    }
  }
}

TEST(no_rows_give_no_draws) {
  Draws draws;
  CHECK_OK(Sample({nullptr, LogitDtype::kFloat32, 0, 100, 100}, nullptr, {}, &draws));
  CHECK_EQ(draws.offsets.size(), 1u);
  CHECK_EQ(draws.offsets[0], 0);
  CHECK(draws.token_ids.empty());
}

TEST(masked_tokens_are_never_drawn) {
  std::vector<float> logits(1000, -kInfinity);
  logits[0] = logits[513] = logits[999] = 2.0f;
  SampleOptions options;
  options.rounds = 6000;
  Draws draws;
  CHECK_OK(Sample(Rows(logits, 1), Keys(1).data(), options, &draws));
  CHECK(draws.token_ids == (std::vector<int32_t>{0, 513, 999}));
}

TEST(refusals_name_the_first_row_and_column) {
  std::vector<float> logits(40, 0.0f);
  logits[27] = kNaN;
  logits[35] = kInfinity;
  CHECK_EQ(Refusal(logits, 4), "logits[2, 7] is nan: logits must not be NaN or +inf");
  logits[27] = kInfinity;
  SampleOptions threads;
  threads.num_threads = 4;
  CHECK_EQ(Refusal(logits, 4, threads), "logits[2, 7] is inf: logits must not be NaN or +inf");
  CHECK_EQ(Refusal(std::vector<float>(10, -kInfinity), 2),
           "logits row 0 is all -inf: there is no token to draw");
  SampleOptions cold;
  cold.temperature = 0.25f;
  CHECK_EQ(Refusal({0.0f, 3e38f}, 1, cold),
           "logits[0, 1] = 3.00000001e+38 leaves float32 at temperature 0.25 and "
           "proposal_temperature 1");
}

TEST(refusals_of_options) {
  SampleOptions options;
  options.rounds = 65536;
  CHECK_EQ(Refusal({0.0f}, 1, options), "rounds must be from 1 to 65535, got 65536");
  options = {};
  options.temperature = 0;
  CHECK(Refusal({0.0f}, 1, options).find("finite and above 0") != std::string::npos);
  options = {};
  options.offset = 1;
  CHECK(Refusal({0.0f}, 1, options).find("systematic") != std::string::npos);
  options.sampler = SamplerKind::kSystematic;
  options.offset = kUniformLimit;
  CHECK(Refusal({0.0f}, 1, options).find("below 2^62") != std::string::npos);
  options = {};
  options.num_threads = 0;
  CHECK(Refusal({0.0f}, 1, options).find("num_threads") != std::string::npos);
}

}  // namespace
}  // namespace sparselogits

int main() { return sparselogits::testing::RunAll(); }
