#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "check.h"
#include "sparselogits/exp_mass.h"
#include "sparselogits/row_kernels.h"
#include "sparselogits/sampler.h"

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
  return {logits.data(), num_rows, columns, columns};
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

TEST(all_instruction_sets_give_the_same_bits) {
  for (const int64_t n : {1, 7, 31, 32, 33, 255, 256, 257, 4099}) {
    std::vector<float> logits = RandomLogits(n, 6, static_cast<unsigned>(n));
    if (n > 7) logits[3] = -kInfinity;
    const auto size = static_cast<size_t>(n);
    const RowKernels& plain = AvailableKernels().front();
    float plain_max = 0;
    CHECK(plain.max(logits.data(), n, &plain_max));
    std::vector<int64_t> plain_masses(size);
    plain.masses(logits.data(), n, plain_max, 45, plain_masses.data());
    std::vector<float> plain_scaled(size);
    plain.scale(logits.data(), n, 0.7f, 1.3f, plain_scaled.data());
    int64_t sum = 0;
    for (const int64_t mass : plain_masses) sum += mass;
    for (const RowKernels& kernels : AvailableKernels()) {
      float max = 0;
      CHECK(kernels.max(logits.data(), n, &max));
      CHECK_EQ(max, plain_max);
      std::vector<int64_t> masses(size);
      kernels.masses(logits.data(), n, max, 45, masses.data());
      CHECK(masses == plain_masses);
      CHECK_EQ(kernels.mass_sum(logits.data(), n, max, 45), sum);
      std::vector<float> scaled(size);
      kernels.scale(logits.data(), n, 0.7f, 1.3f, scaled.data());
      CHECK(scaled == plain_scaled);
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

TEST(points_are_sorted_and_one_in_each_stratum) {
  std::vector<int64_t> points;
  const int64_t total = (int64_t{1} << 61) - 987654321;
  for (const int rounds : {1, 2, 7, 50, 65535}) {
    for (const SamplerKind kind :
         {SamplerKind::kMultinomial, SamplerKind::kSystematic, SamplerKind::kStratified}) {
      FillPoints(kind, rounds, total, PositionUniforms(1, 2, 3), points);
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
  CHECK_OK(Sample({nullptr, 0, 100, 100}, nullptr, {}, &draws));
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
  options.num_threads = 0;
  CHECK(Refusal({0.0f}, 1, options).find("num_threads") != std::string::npos);
}

}  // namespace
}  // namespace sparselogits

int main() { return sparselogits::testing::RunAll(); }
