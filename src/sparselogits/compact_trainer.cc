#include "sparselogits/compact_trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "sparselogits/code_trainer.h"
#include "sparselogits/compact_layout.h"
#include "sparselogits/latent_classes.h"

namespace sparselogits {
namespace {

constexpr double kPrior = 2000;     // ids of the overall distribution that a class starts with
constexpr int kRounds = 14;         // of fitting
constexpr double kGroupPrior = 30;  // the same of groups, with which the search starts
constexpr int kGroupRounds = 10;
constexpr size_t kMaxOwnIds = 8192;   // of a class
constexpr double kUnknownSize = 100;  // of a cache, in sizes of its samples
// Bits that an id saves a time in a class's own list, where it can stand in its order, at least;
// and in the global list.
constexpr double kLeastSaved = 1;
constexpr double kGlobalSaved = 4;
constexpr uint32_t kTargetBuckets = 252;
constexpr uint32_t kMaxGlobalIds = 1u << 20;

std::vector<BlockView> CutIntoBlocks(const BlockView& block, size_t positions) {
  std::vector<BlockView> parts;
  size_t entry = 0;
  for (size_t first = 0; first < block.num_positions(); first += positions) {
    const size_t last = std::min(first + positions, block.num_positions());
    size_t end = entry;
    for (size_t i = first; i < last; ++i) end += block.entries[i];
    parts.push_back(block.Slice(first, last - first, entry, end - entry));
    entry = end;
  }
  return parts;
}

// Ids by how often they occur, the most frequent first; of equal ones the smaller.
struct IdRanks {
  std::vector<uint32_t> ids;      // of each rank
  std::vector<uint32_t> rank_of;  // of each id; kUnseen where it does not occur
  std::vector<double> shares;     // of each rank
  static constexpr uint32_t kUnseen = 0xFFFFFFFFu;

  // Of ids that occur at least so often.
  IdRanks(uint32_t vocab_size, const std::vector<BlockView>& blocks, double least_count) {
    std::vector<uint32_t> counts(vocab_size, 0);
    for (const BlockView& block : blocks)
      for (const uint32_t id : block.token_ids) ++counts[id];
    for (uint32_t id = 0; id < vocab_size; ++id)
      if (counts[id] > 0 && counts[id] >= least_count) ids.push_back(id);
    std::stable_sort(ids.begin(), ids.end(),
                     [&](uint32_t a, uint32_t b) { return counts[a] > counts[b]; });
    if (ids.size() > kMaxGlobalIds) ids.resize(kMaxGlobalIds);
    rank_of.assign(vocab_size, kUnseen);
    double total = 0;
    for (uint32_t r = 0; r < ids.size(); ++r) {
      rank_of[ids[r]] = r;
      total += counts[ids[r]];
    }
    for (const uint32_t id : ids) shares.push_back(counts[id] / total);
  }
};

Bags BagsOf(const std::vector<BlockView>& blocks, const IdRanks& ranks) {
  Bags bags;
  for (const BlockView& block : blocks) {
    size_t entry = 0;
    for (const uint32_t k : block.entries) {
      for (uint32_t i = 0; i < k; ++i) {
        const uint32_t rank = ranks.rank_of[block.token_ids[entry++]];
        if (rank != IdRanks::kUnseen) bags.items.push_back(rank);
      }
      bags.offsets.push_back(static_cast<uint32_t>(bags.items.size()));
    }
  }
  return bags;
}

// For each bag the item that stands for it: the one with the largest value.
std::vector<uint32_t> TopItems(const std::vector<BlockView>& blocks, const IdRanks& ranks) {
  std::vector<uint32_t> tops;
  for (const BlockView& block : blocks) {
    size_t entry = 0;
    for (const uint32_t k : block.entries) {
      uint32_t best = 0, top = 0;
      for (uint32_t i = 0; i < k; ++i, ++entry) {
        const uint32_t value =
            block.counts.empty() ? block.weight_bits[entry] : block.counts[entry];
        const uint32_t rank = ranks.rank_of[block.token_ids[entry]];
        if (rank != IdRanks::kUnseen && value > best) best = value, top = rank;
      }
      tops.push_back(top);
    }
  }
  return tops;
}

// Positions with the same top item, together as one bag each: classes of these start the search.
std::vector<uint32_t> FirstLabels(const Bags& bags, const std::vector<uint32_t>& tops,
                                  const IdRanks& ranks, uint32_t num_classes) {
  const auto num_items = static_cast<uint32_t>(ranks.ids.size());
  if (num_items == 0) return std::vector<uint32_t>(tops.size(), 0);
  std::vector<uint32_t> number(num_items, 0);
  for (const uint32_t top : tops) ++number[top];
  std::vector<uint32_t> order;  // tops, the most frequent first
  for (uint32_t item = 0; item < num_items; ++item)
    if (number[item] > 0) order.push_back(item);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return number[a] > number[b]; });
  std::vector<std::vector<uint32_t>> members(num_items);
  for (uint32_t bag = 0; bag < tops.size(); ++bag) members[tops[bag]].push_back(bag);

  Bags groups;
  std::vector<uint32_t> sum;
  std::vector<float> count(num_items, 0);
  for (const uint32_t top : order) {
    sum.clear();
    for (const uint32_t bag : members[top])
      for (uint32_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i)
        if (count[bags.items[i]]++ == 0) sum.push_back(bags.items[i]);
    for (const uint32_t item : sum) {
      groups.items.push_back(item);
      groups.weights.push_back(std::exchange(count[item], 0.0f));
    }
    groups.offsets.push_back(static_cast<uint32_t>(groups.items.size()));
  }
  // The most frequent groups start as classes of their own, which the first round gives the others.
  Bags seeds = groups;
  seeds.offsets.resize(std::min<size_t>(num_classes, groups.size()) + 1);
  std::vector<uint32_t> labels(seeds.size());
  std::iota(labels.begin(), labels.end(), 0u);
  LatentClasses classes =
      FitClasses(seeds, ranks.shares, std::move(labels), num_classes, kGroupPrior, 0);
  classes = ContinueClasses(groups, ranks.shares, std::move(classes), kGroupPrior, kGroupRounds);
  std::vector<uint32_t> class_of_top(num_items, 0);
  for (uint32_t g = 0; g < order.size(); ++g) class_of_top[order[g]] = classes.of_bag[g];
  std::vector<uint32_t> first(tops.size());
  for (size_t bag = 0; bag < tops.size(); ++bag) first[bag] = class_of_top[tops[bag]];
  return first;
}

// Cuts a list into buckets of about `target` mass each.
void CutIntoBuckets(const std::vector<double>& masses, double* left, uint32_t* buckets_left,
                    std::vector<uint8_t>* bits, std::vector<double>* bucket_masses) {
  size_t at = 0;
  while (at < masses.size()) {
    const size_t ids_left = masses.size() - at;
    const double target = *left / std::max(1u, *buckets_left);
    size_t number = 0;
    double mass = 0;
    while (number < ids_left && mass < target) mass += masses[at + number++];
    int b = number <= 1 ? 0 : static_cast<int>(std::lround(std::log2(static_cast<double>(number))));
    const auto all = static_cast<int>(std::bit_width(ids_left - 1));
    b = *buckets_left <= 1 ? all : std::min(b, all);  // the last may be larger than what is left
    const size_t size = std::min(ids_left, size_t{1} << b);
    mass = 0;
    for (size_t i = 0; i < size; ++i) mass += masses[at + i];
    bits->push_back(static_cast<uint8_t>(b));
    bucket_masses->push_back(mass);
    *left -= mass;
    if (*buckets_left > 1) --*buckets_left;
    at += size;
  }
}

std::vector<uint8_t> HazardsOf(const std::vector<double>& masses) {
  std::vector<uint8_t> hazards(masses.size());
  double left = 0;
  for (size_t b = masses.size(); b-- > 0;) {
    left += masses[b];
    const double quarters =
        left > 0 && masses[b] > 0 ? -4 * std::log2(masses[b] / left) : compact::kMaxHazard;
    hazards[b] =
        static_cast<uint8_t>(std::clamp(std::lround(quarters), 0l, long{compact::kMaxHazard}));
  }
  return hazards;
}

// The lists and buckets of one class. `raw_share`: of ids that are in no list. `uses_per_sample`:
// how often the cache will use what was counted once.
ModelContent::Class MakeClass(const IdRanks& ranks, const LatentClasses& classes, uint32_t c,
                              int id_bits, double raw_share, double uses_per_sample) {
  const size_t k = classes.num_classes;
  const size_t num_items = ranks.ids.size();
  std::vector<double> mass(num_items);
  double total = 0;
  for (size_t r = 0; r < num_items; ++r) {
    mass[r] = classes.item_counts[r * k + c] + kPrior * ranks.shares[r];
    total += mass[r];
  }
  // An id is worth its place in the file where its uses save as many bits.
  std::vector<uint32_t> order;
  for (uint32_t r = 0; r < num_items && k > 1; ++r) {
    const double uses = classes.item_counts[r * k + c] * uses_per_sample;
    const double saved = std::max(kLeastSaved, std::log2(mass[r] / total / ranks.shares[r]));
    if (uses * saved > id_bits) order.push_back(r);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return mass[a] > mass[b]; });
  if (order.size() > kMaxOwnIds) order.resize(kMaxOwnIds);

  ModelContent::Class made;
  std::vector<double> own, global(num_items);
  double in_list = 0;
  for (size_t r = 0; r < num_items; ++r) global[r] = ranks.shares[r];
  for (const uint32_t r : order) {
    made.ids.push_back(ranks.ids[r]);
    own.push_back(mass[r] / total);
    in_list += own.back();
    global[r] = 0;
  }
  const double rest = 1 - in_list;
  const double raw = std::min(rest / 2, raw_share);
  const double global_total = std::accumulate(global.begin(), global.end(), 1e-12);
  for (double& m : global) m *= (rest - raw) / global_total;

  std::vector<double> masses;
  double left = 1 - raw;
  uint32_t buckets_left = kTargetBuckets;
  CutIntoBuckets(own, &left, &buckets_left, &made.own_bits, &masses);
  CutIntoBuckets(global, &left, &buckets_left, &made.global_bits, &masses);
  masses.push_back(std::max(raw, 1e-9));
  made.hazards = HazardsOf(masses);
  return made;
}

}  // namespace

Status TrainModel(const RecordFormat& format, const BlockView& samples,
                  const TrainingOptions& options, ModelPtr* out) {
  // One block in eight is held out: codes must not be fitted to what the lists were made from.
  std::vector<BlockView> learnt, held_out;
  const std::vector<BlockView> blocks = CutIntoBlocks(samples, 1024);
  for (size_t i = 0; i < blocks.size(); ++i)
    (i % 8 == 4 && blocks.size() > 4 ? held_out : learnt).push_back(blocks[i]);
  if (held_out.empty()) held_out = learnt;

  const size_t positions = samples.num_positions();
  uint32_t num_classes = options.num_classes;
  if (num_classes == 0)
    num_classes = positions < 4096
                      ? 1
                      : std::min(64u, std::bit_floor(static_cast<uint32_t>(
                                          std::min<size_t>(positions, 1u << 20) / 512)));
  const double uses_per_sample =
      options.expected_positions == 0
          ? kUnknownSize
          : static_cast<double>(options.expected_positions) / static_cast<double>(positions);

  ModelContent content;
  content.format = format;
  const int id_bits = packed::TokenBits(format.vocab_size);
  const IdRanks ranks(format.vocab_size, learnt, id_bits / (kGlobalSaved * uses_per_sample));
  size_t unseen = 0, seen = 0;
  for (const BlockView& block : held_out)
    for (const uint32_t id : block.token_ids)
      ++(ranks.rank_of[id] == IdRanks::kUnseen ? unseen : seen);
  const double raw_share =
      (static_cast<double>(unseen) + 0.5) / (static_cast<double>(unseen + seen) + 1);

  const Bags bags = BagsOf(learnt, ranks);
  std::vector<uint32_t> labels(bags.size(), 0);
  if (num_classes > 1) labels = FirstLabels(bags, TopItems(learnt, ranks), ranks, num_classes);
  LatentClasses classes = FitClasses(bags, ranks.shares, std::move(labels), num_classes, kPrior,
                                     num_classes > 1 ? kRounds : 0);
  if (num_classes > 1) ExpectCounts(bags, ranks.shares, kPrior, &classes);
  content.global_ids = ranks.ids;
  for (uint32_t c = 0; c < num_classes; ++c)
    content.classes.push_back(MakeClass(ranks, classes, c, id_bits, raw_share, uses_per_sample));
  TrainCodes(learnt, held_out, &content);
  return CompactModel::Parse(EncodeModel(content), out);
}

}  // namespace sparselogits
