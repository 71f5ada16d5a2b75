// The losses' loops in every instruction set, and rows against the formula in double precision.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "sparselogits/bfloat16.h"
#include "sparselogits/loss_kernels.h"
#include "sparselogits/loss_rows.h"

namespace sparselogits {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> RandomLogits(int64_t n, float scale, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<float> logits(static_cast<size_t>(n));
  for (float& x : logits)
    x = scale * (static_cast<float>(generator() >> 8) / static_cast<float>(1 << 23) - 1.0f);
  return logits;
}

// Rows with their targets; Run() computes them into `gradient`.
struct Case {
  int64_t rows, columns;
  std::vector<float> logits;
  std::vector<int64_t> offsets = {0}, ids;
  std::vector<float> weights;
  std::vector<char> keep;
  float softcap = 0, temperature = 1, scale = 1;
  std::vector<float> gradient, losses;

  Case(int64_t num_rows, int64_t num_columns, unsigned seed, int64_t first_ids = 0)
      : rows(num_rows),
        columns(num_columns),
        logits(RandomLogits(num_rows * num_columns, 12, seed)),
        keep(static_cast<size_t>(num_rows), 1) {
    std::mt19937 generator(seed + 1);
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<int64_t> row_ids;
      for (int i = 0; i < 5; ++i)
        row_ids.push_back(static_cast<int64_t>(generator()) %
                          (first_ids ? first_ids : num_columns));
      std::sort(row_ids.begin(), row_ids.end());
      row_ids.erase(std::unique(row_ids.begin(), row_ids.end()), row_ids.end());
      for (const int64_t id : row_ids) {
        ids.push_back(id);
        weights.push_back(static_cast<float>(generator() % 97 + 1) / 150);
      }
      offsets.push_back(static_cast<int64_t>(ids.size()));
    }
  }

  LossRows Arguments(const void* z, void* out, LossDtype dtype) const {
    static_assert(sizeof(bool) == sizeof(char));
    return {z,       out,         dtype,
            rows,    columns,     offsets,
            ids,     weights,     reinterpret_cast<const bool*>(keep.data()),
            softcap, temperature, scale};
  }

  Status Run(int num_threads = 1) {
    gradient.assign(logits.size(), 77);
    losses.assign(static_cast<size_t>(rows), 77);
    return SparseLossRows(Arguments(logits.data(), gradient.data(), LossDtype::kFloat32),
                          num_threads, losses.data());
  }

  // The formula of loss_rows.h.
  void Expect(int64_t row, double tolerance) const {
    const float* const z = logits.data() + row * columns;
    const auto tanh = [&](int64_t i) { return std::tanh(static_cast<double>(z[i]) / softcap); };
    const auto over_t = [&](int64_t i) {
      return (softcap == 0 ? static_cast<double>(z[i]) : softcap * tanh(i)) / temperature;
    };
    double max = -HUGE_VAL, sum = 0, total = 0, loss = 0;
    for (int64_t i = 0; i < columns; ++i) max = std::max(max, over_t(i));
    for (int64_t i = 0; i < columns; ++i) sum += std::exp(over_t(i) - max);
    const double lse = max + std::log(sum);
    std::vector<double> expected(static_cast<size_t>(columns));
    const auto first = static_cast<size_t>(offsets[static_cast<size_t>(row)]);
    const auto last = static_cast<size_t>(offsets[static_cast<size_t>(row) + 1]);
    for (size_t i = first; i < last; ++i) total += static_cast<double>(weights[i]);
    for (int64_t i = 0; i < columns; ++i)
      expected[static_cast<size_t>(i)] = scale * total * std::exp(over_t(i) - lse);
    for (size_t i = first; i < last; ++i) {
      const auto weight = static_cast<double>(weights[i]);
      expected[static_cast<size_t>(ids[i])] -= scale * weight;
      loss += weight * (lse - over_t(ids[i]));
    }
    CHECK(std::abs(static_cast<double>(losses[static_cast<size_t>(row)]) - loss) <=
          tolerance * std::max(1.0, std::abs(loss)));
    double largest = 0;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    // Afterwards: near the cap a float32 tanh knows its slope to 1e-7 of 1, not of the slope.
    for (int64_t i = 0; softcap != 0 && i < columns; ++i)
      expected[static_cast<size_t>(i)] *= 1 - tanh(i) * tanh(i);
    for (int64_t i = 0; i < columns; ++i)
      CHECK(std::abs(static_cast<double>(gradient[static_cast<size_t>(row * columns + i)]) -
                     expected[static_cast<size_t>(i)]) <= tolerance * largest);
  }
};

TEST(every_instruction_set_gives_exponentials_to_float32_accuracy) {
  for (const LossKernels& kernels : AvailableLossKernels())
    for (const int64_t n : {1, 3, 4, 5, 15, 16, 17, 31, 33, 63, 64, 100, 2047, 2048}) {
      std::vector<float> z = RandomLogits(n, 60, static_cast<unsigned>(n)), exps(z.size());
      const TileSum tile = kernels.exponentials(z.data(), n, 0.75f, exps.data());
      CHECK_EQ(tile.max, *std::max_element(z.begin(), z.end()));
      double sum = 0;
      for (size_t i = 0; i < z.size(); ++i) {
        const double expected = 0x1p30 * std::exp(static_cast<double>(z[i] - tile.max) * 0.75);
        sum += expected;
        // One rounding of (z - max) / T moves the result by that many of its units.
        const double error = 2e-7 + 1e-7 * std::abs(static_cast<double>(z[i] - tile.max));
        CHECK(std::abs(static_cast<double>(exps[i]) - expected) <= error * expected);
      }
      CHECK(std::abs(tile.sum - sum) <= 1e-6 * sum);
      // In place, and what lies behind the tile stays.
      std::vector<float> same = z;
      same.push_back(5);
      kernels.exponentials(same.data(), n, 0.75f, same.data());
      CHECK_EQ(same.back(), 5.0f);
      same.pop_back();
      CHECK(same == exps);
    }
}

TEST(every_instruction_set_gives_tanh_to_float32_accuracy) {
  for (const LossKernels& kernels : AvailableLossKernels())
    for (const int64_t n : {1, 3, 4, 5, 15, 16, 17, 33, 100, 2048}) {
      for (const float scale : {1e-30f, 1e-3f, 0.5f, 4.0f, 60.0f, 3e38f}) {
        const std::vector<float> z = RandomLogits(n, scale, static_cast<unsigned>(n));
        std::vector<float> out(z.size() + 1, 5);
        kernels.tanh(z.data(), n, 0.5f, out.data());
        CHECK_EQ(out.back(), 5.0f);
        for (size_t i = 0; i < z.size(); ++i) {
          const double expected = std::tanh(static_cast<double>(z[i]) * 0.5);
          CHECK(std::abs(static_cast<double>(out[i]) - expected) <= 3e-7 * std::abs(expected));
        }
        std::vector<float> same = z;
        kernels.tanh(same.data(), n, 0.5f, same.data());
        CHECK(std::equal(same.begin(), same.end(), out.begin()));
      }
      std::vector<float> z(static_cast<size_t>(n), kInfinity), out(z.size());
      kernels.tanh(z.data(), n, 0.5f, out.data());
      CHECK(std::all_of(out.begin(), out.end(), [](float x) { return x == 1; }));
      std::fill(z.begin(), z.end(), -kInfinity);
      z.back() = kNaN;
      kernels.tanh(z.data(), n, 0.5f, out.data());
      CHECK(std::all_of(out.begin(), out.end() - 1, [](float x) { return x == -1; }));
      CHECK(std::isnan(out.back()));
      std::fill(z.begin(), z.end(), -0.0f);
      kernels.tanh(z.data(), n, 0.5f, out.data());
      CHECK(std::all_of(out.begin(), out.end(), [](float x) { return x == 0; }));
    }
}

TEST(every_instruction_set_multiplies_by_the_slope_of_tanh) {
  for (const LossKernels& kernels : AvailableLossKernels())
    for (const int64_t n : {1, 9, 70}) {
      const std::vector<float> exps = RandomLogits(n, 3, 5), tanhs = RandomLogits(n, 1, 6);
      std::vector<float> out = tanhs;
      out.push_back(5);
      kernels.multiply_slope(exps.data(), n, 0.5f, out.data());
      CHECK_EQ(out.back(), 5.0f);
      for (size_t i = 0; i < tanhs.size(); ++i)
        CHECK_EQ(out[i], exps[i] * 0.5f * (1.0f - tanhs[i] * tanhs[i]));
    }
}

TEST(masked_logits_have_no_mass_and_faults_are_not_lost) {
  for (const LossKernels& kernels : AvailableLossKernels())
    for (const int64_t n : {1, 7, 40, 200}) {
      std::vector<float> z(static_cast<size_t>(n), -kInfinity), exps(z.size());
      TileSum tile = kernels.exponentials(z.data(), n, 1, exps.data());
      CHECK_EQ(tile.sum, 0.0);
      CHECK_EQ(tile.max, -kInfinity);
      CHECK(std::all_of(exps.begin(), exps.end(), [](float x) { return x == 0; }));
      for (size_t at = 0; at < z.size(); ++at) {
        for (const float fault : {kNaN, kInfinity}) {
          for (const float other : {-kInfinity, 3.0f}) {
            std::fill(z.begin(), z.end(), other);
            z[at] = fault;
            tile = kernels.exponentials(z.data(), n, 1, exps.data());
            CHECK(std::isnan(tile.sum));
          }
        }
        std::fill(z.begin(), z.end(), -kInfinity);
        z[at] = -2;
        tile = kernels.exponentials(z.data(), n, 1, exps.data());
        CHECK_EQ(tile.sum, 0x1p30);
        CHECK_EQ(exps[at], 0x1p30f);
      }
    }
}

TEST(bfloat16_is_rounded_to_nearest_even) {
  CHECK_EQ(FloatToBfloat16(1.0f), 0x3F80);
  CHECK_EQ(FloatToBfloat16(std::bit_cast<float>(0x3F808000u)), 0x3F80);  // a tie
  CHECK_EQ(FloatToBfloat16(std::bit_cast<float>(0x3F818000u)), 0x3F82);
  CHECK_EQ(FloatToBfloat16(std::bit_cast<float>(0x3F808001u)), 0x3F81);
  CHECK_EQ(FloatToBfloat16(-kInfinity), 0xFF80);
  CHECK(std::isnan(Bfloat16ToFloat(FloatToBfloat16(std::bit_cast<float>(0x7F800001u)))));
  for (const LossKernels& kernels : AvailableLossKernels())
    for (const int64_t n : {1, 9, 70}) {
      const std::vector<float> values = RandomLogits(n, 3, 5);
      std::vector<uint16_t> narrow(values.size());
      std::vector<float> wide(values.size());
      kernels.multiply_narrow(values.data(), n, 0.5f, narrow.data());
      kernels.widen(narrow.data(), n, wide.data());
      for (size_t i = 0; i < values.size(); ++i) {
        CHECK_EQ(narrow[i], FloatToBfloat16(values[i] * 0.5f));
        CHECK_EQ(wide[i], Bfloat16ToFloat(narrow[i]));
      }
    }
}

TEST(losses_and_gradients_follow_the_formula) {
  for (const int64_t columns : {1, 2, 100, 2048, 2049, 5000})
    for (const float temperature : {1.0f, 0.5f, 3.0f}) {
      Case c(6, columns, static_cast<unsigned>(columns));
      c.temperature = temperature;
      c.scale = 0.25f;
      CHECK(c.Run().ok());
      for (int64_t row = 0; row < c.rows; ++row) c.Expect(row, 3e-6);
    }
}

TEST(a_softcap_bounds_logits_and_scales_the_gradient) {
  for (const int64_t columns : {1, 2, 100, 2049, 5000})
    for (const float softcap : {0.5f, 3.0f, 30.0f, 1e4f})
      for (const float temperature : {1.0f, 0.5f}) {
        Case c(6, columns, static_cast<unsigned>(columns));
        c.softcap = softcap;
        c.temperature = temperature;
        c.scale = 0.25f;
        CHECK(c.Run().ok());
        for (int64_t row = 0; row < c.rows; ++row) c.Expect(row, 5e-6);
      }
}

TEST(under_a_softcap_infinite_logits_are_at_the_cap_and_nan_stays_in_its_row) {
  Case c(3, 3000, 3);
  c.softcap = 20;
  c.logits[1] = kInfinity;
  c.logits[2] = -kInfinity;
  c.logits[3000 + 2999] = kNaN;
  CHECK(c.Run().ok());
  CHECK(std::isnan(c.losses[1]));
  for (size_t i = 3000; i < 6000; ++i) CHECK(std::isnan(c.gradient[i]));
  c.Expect(0, 5e-6);
  c.Expect(2, 5e-6);
}

TEST(tiles_of_very_different_height_are_joined) {
  Case c(3, 3 * kSoftmaxTile, 9, 2 * kSoftmaxTile);
  for (int64_t i = 0; i < kSoftmaxTile; ++i) {
    c.logits[static_cast<size_t>(i)] += 80;                            // row 0, first tile
    c.logits[static_cast<size_t>(4 * kSoftmaxTile + i)] -= 200;        // row 1, second
    c.logits[static_cast<size_t>(8 * kSoftmaxTile + i)] = -kInfinity;  // row 2, third
  }
  CHECK(c.Run().ok());
  for (int64_t row = 0; row < c.rows; ++row) c.Expect(row, 3e-6);
  for (int64_t i = 8 * kSoftmaxTile; i < 9 * kSoftmaxTile; ++i)
    CHECK_EQ(c.gradient[static_cast<size_t>(i)], 0.0f);
}

TEST(a_fault_in_a_row_stays_in_it) {
  Case c(4, 3000, 3);
  c.logits[3000 + 2999] = kNaN;
  c.logits[6000] = kInfinity;
  CHECK(c.Run().ok());
  for (const size_t row : {1, 2}) {
    CHECK(std::isnan(c.losses[row]));
    for (size_t i = 0; i < 3000; ++i) CHECK(std::isnan(c.gradient[row * 3000 + i]));
  }
  c.Expect(0, 3e-6);
  c.Expect(3, 3e-6);
}

TEST(an_entry_without_weight_adds_nothing_whatever_its_logit) {
  Case c(1, 300, 4);
  c.weights.front() = 0;
  c.logits[static_cast<size_t>(c.ids.front())] = -kInfinity;
  CHECK(c.Run().ok());
  CHECK(std::isfinite(c.losses.front()));
  CHECK_EQ(c.gradient[static_cast<size_t>(c.ids.front())], 0.0f);
}

TEST(rows_that_are_not_kept_count_for_nothing_whatever_they_hold) {
  Case c(3, 500, 4);
  std::fill(c.logits.begin() + 500, c.logits.begin() + 1000, kNaN);
  c.keep[1] = 0;
  CHECK(c.Run().ok());
  CHECK_EQ(c.losses[1], 0.0f);
  for (size_t i = 500; i < 1000; ++i) CHECK_EQ(c.gradient[i], 0.0f);
  c.Expect(0, 3e-6);
  c.Expect(2, 3e-6);
}

TEST(threads_and_place_change_no_bit) {
  for (const float softcap : {0.0f, 20.0f}) {
    Case c(40, 2500, 6);
    c.softcap = softcap;
    CHECK(c.Run(1).ok());
    const std::vector<float> gradient = c.gradient, losses = c.losses;
    for (const int threads : {2, 3, 64}) {
      CHECK(c.Run(threads).ok());
      CHECK(c.gradient == gradient);
      CHECK(c.losses == losses);
    }
    // In place, and losses alone.
    std::vector<float> own = c.logits, alone(losses.size());
    CHECK(SparseLossRows(c.Arguments(own.data(), own.data(), LossDtype::kFloat32), 2, alone.data())
              .ok());
    CHECK(own == gradient);
    CHECK(alone == losses);
    CHECK(
        SparseLossRows(c.Arguments(c.logits.data(), nullptr, LossDtype::kFloat32), 2, alone.data())
            .ok());
    CHECK(alone == losses);
  }
}

TEST(bfloat16_logits_are_those_numbers_and_the_gradient_is_rounded_once) {
  for (const float softcap : {0.0f, 20.0f}) {
    Case c(5, 4100, 8);
    c.softcap = softcap;
    std::vector<uint16_t> bits(c.logits.size()), gradient(c.logits.size());
    for (size_t i = 0; i < bits.size(); ++i) {
      bits[i] = FloatToBfloat16(c.logits[i]);
      c.logits[i] = Bfloat16ToFloat(bits[i]);
    }
    c.keep[2] = 0;
    CHECK(c.Run().ok());
    std::vector<float> losses(c.losses.size());
    CHECK(SparseLossRows(c.Arguments(bits.data(), gradient.data(), LossDtype::kBfloat16), 2,
                         losses.data())
              .ok());
    CHECK(losses == c.losses);
    for (size_t i = 0; i < bits.size(); ++i) CHECK_EQ(gradient[i], FloatToBfloat16(c.gradient[i]));
    CHECK(SparseLossRows(c.Arguments(bits.data(), bits.data(), LossDtype::kBfloat16), 1,
                         losses.data())
              .ok());
    CHECK(bits == gradient);
    CHECK(losses == c.losses);
  }
}

TEST(entries_that_lie_nowhere_are_refused) {
  Case c(2, 50, 2);
  const std::vector<int64_t> ids = c.ids, offsets = c.offsets;
  for (const int64_t id : {int64_t{-1}, int64_t{50}}) {
    c.ids.back() = id;
    CHECK(!c.Run().ok());
  }
  c.ids = ids;
  c.offsets[1] = offsets[2] + 1;
  CHECK(!c.Run().ok());
  c.offsets = offsets;
  c.offsets[0] = 1;
  CHECK(!c.Run().ok());
  c.offsets = offsets;
  c.weights.pop_back();
  CHECK(!c.Run().ok());
}

}  // namespace
}  // namespace sparselogits

int main() { return sparselogits::testing::RunAll(); }
