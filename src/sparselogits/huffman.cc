#include "sparselogits/huffman.h"

#include <algorithm>

namespace sparselogits {

std::vector<uint8_t> CodeLengths(std::span<const uint64_t> counts, int limit) {
  std::vector<uint8_t> lengths(counts.size(), 0);
  std::vector<uint32_t> symbols;  // that occur, the rarest first
  for (uint32_t s = 0; s < counts.size(); ++s)
    if (counts[s] > 0) symbols.push_back(s);
  std::stable_sort(symbols.begin(), symbols.end(),
                   [&](uint32_t a, uint32_t b) { return counts[a] < counts[b]; });
  if (symbols.size() == 1) lengths[symbols[0]] = 1;
  if (symbols.size() <= 1) return lengths;

  // Each level holds packages: two of the level below, or one symbol. A package in the solution
  // makes the codes of all its symbols one bit longer.
  struct Package {
    uint64_t count;
    std::vector<uint8_t> uses;  // of each symbol
  };
  std::vector<Package> leaves;
  for (size_t i = 0; i < symbols.size(); ++i) {
    leaves.push_back({counts[symbols[i]], std::vector<uint8_t>(symbols.size(), 0)});
    leaves.back().uses[i] = 1;
  }
  std::vector<Package> level = leaves;
  for (int bit = 1; bit < limit; ++bit) {
    std::vector<Package> next = leaves;
    for (size_t i = 0; i + 1 < level.size(); i += 2) {
      Package pair = std::move(level[i]);
      pair.count += level[i + 1].count;
      for (size_t s = 0; s < pair.uses.size(); ++s)
        pair.uses[s] = static_cast<uint8_t>(pair.uses[s] + level[i + 1].uses[s]);
      next.push_back(std::move(pair));
    }
    std::stable_sort(next.begin(), next.end(),
                     [](const Package& a, const Package& b) { return a.count < b.count; });
    level = std::move(next);
  }
  for (size_t i = 0; i < 2 * symbols.size() - 2; ++i)
    for (size_t s = 0; s < symbols.size(); ++s)
      lengths[symbols[s]] = static_cast<uint8_t>(lengths[symbols[s]] + level[i].uses[s]);
  return lengths;
}

std::vector<uint16_t> CanonicalCodes(std::span<const uint8_t> lengths) {
  std::array<uint32_t, kMaxCodeLength + 1> number{};
  for (const uint8_t length : lengths)
    if (length > 0) ++number[length];
  std::array<uint32_t, kMaxCodeLength + 1> code{};
  for (size_t length = 1; length < code.size(); ++length)
    code[length] = (code[length - 1] + (length > 1 ? number[length - 1] : 0)) << 1;
  std::vector<uint16_t> codes(lengths.size(), 0);
  for (size_t s = 0; s < lengths.size(); ++s) {
    const int length = lengths[s];
    if (length == 0) continue;
    uint32_t value = code[static_cast<size_t>(length)]++;
    uint32_t reversed = 0;
    for (int bit = 0; bit < length; ++bit, value >>= 1) reversed = reversed << 1 | (value & 1);
    codes[s] = static_cast<uint16_t>(reversed);
  }
  return codes;
}

bool IsCompleteCode(std::span<const uint8_t> lengths) {
  uint32_t sum = 0;  // in units of 2^-kMaxCodeLength
  size_t symbols = 0;
  for (const uint8_t length : lengths) {
    if (length == 0) continue;
    if (length > kMaxCodeLength) return false;
    ++symbols;
    sum += 1u << (kMaxCodeLength - length);
  }
  return symbols == 1 ? sum == 1u << (kMaxCodeLength - 1) : sum == 1u << kMaxCodeLength;
}

void HuffmanTables::Add(std::span<const uint8_t> lengths) {
  const size_t base = entries_.size();
  const size_t size = size_t{1} << width_;
  entries_.resize(base + size);
  const std::vector<uint16_t> codes = CanonicalCodes(lengths);
  size_t symbols = 0;
  for (size_t s = 0; s < lengths.size(); ++s) {
    if (lengths[s] == 0) continue;
    ++symbols;
    for (size_t at = codes[s]; at < size; at += size_t{1} << lengths[s])
      entries_[base + at] = static_cast<Entry>(s << 8 | lengths[s]);
  }
  if (symbols == 1)  // both values of its bit mean the symbol
    for (size_t at = 1; at < size; at += 2) entries_[base + at] = entries_[base];
}

}  // namespace sparselogits
