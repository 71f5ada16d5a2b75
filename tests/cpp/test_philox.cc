// Known answers: the philox4x32-10 vectors published with Random123 (kat_vectors).
#include "check.h"
#include "sparselogits/philox.h"

namespace sparselogits {
namespace {

void CheckWords(const PhiloxCounter& words, const PhiloxCounter& expected) {
  for (size_t i = 0; i < words.size(); ++i) CHECK_EQ(words[i], expected[i]);
}

TEST(philox_known_answer_zeros) {
  CheckWords(Philox4x32({0, 0, 0, 0}, {0, 0}), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
}

TEST(philox_known_answer_ones) {
  constexpr uint32_t kOnes = 0xffffffff;
  CheckWords(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
             {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST(philox_known_answer_pi) {
  CheckWords(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
             {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(uniforms_take_their_words_from_the_documented_places) {
  const uint64_t seed = 0x299f31d0a4093822;
  const uint64_t sequence_id = 0x0370734413198a2e;
  const uint64_t position = 0xabcd243f6a88;
  const PhiloxCounter words =
      Philox4x32({0x243f6a88, 0xabcd0000 | 3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0});
  PositionUniforms uniforms(seed, sequence_id, position);
  CHECK_EQ(uniforms.Draw(6), (uint64_t{words[1]} << 32 | words[0]) >> 2);
  CHECK_EQ(uniforms.Draw(7), (uint64_t{words[3]} << 32 | words[2]) >> 2);
}

TEST(uniforms_do_not_depend_on_what_was_drawn_before) {
  PositionUniforms forwards(7, 8, 9);
  PositionUniforms backwards(7, 8, 9);
  std::vector<uint64_t> draws;
  for (uint32_t d = 0; d < 100; ++d) draws.push_back(forwards.Draw(d));
  for (uint32_t d = 100; d-- > 0;) CHECK_EQ(backwards.Draw(d), draws[d]);
}

TEST(the_last_draw_of_the_largest_rounds_stays_in_its_position) {
  // Block 32767 fits the 16 bits of its own: position bits 32 and up are not touched.
  PositionUniforms low(1, 2, 3);
  PositionUniforms high(1, 2, 3 + (uint64_t{1} << 32));
  CHECK(low.Draw(65534) != high.Draw(65534));
  CHECK(low.Draw(65534) != low.Draw(0));
}

}  // namespace
}  // namespace sparselogits

int main() { return sparselogits::testing::RunAll(); }
