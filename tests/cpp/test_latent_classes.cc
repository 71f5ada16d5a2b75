// The classes of positions: two kinds that were planted are told apart.
#include <algorithm>
#include <random>

#include "check.h"
#include "sparselogits/latent_classes.h"

using namespace sparselogits;

namespace {

constexpr uint32_t kItems = 40;

// Bag i holds items of the lower half where kinds[i] is 0, of the upper half where it is 1, and a
// few of both.
struct Planted {
  Planted(size_t num_bags, uint32_t noise_percent, bool weighted, std::mt19937* random) {
    for (size_t i = 0; i < num_bags; ++i) {
      kinds.push_back((*random)() % 2);
      for (int j = 0; j < 8; ++j) {
        const uint32_t item = (*random)() % (kItems / 2);
        const bool other = (*random)() % 100 < noise_percent;
        bags.items.push_back(item + ((kinds.back() ^ (other ? 1u : 0u)) != 0 ? kItems / 2 : 0));
        if (weighted) bags.weights.push_back(1.0f + static_cast<float>((*random)() % 3));
      }
      bags.offsets.push_back(static_cast<uint32_t>(bags.items.size()));
    }
    shares.assign(kItems, 0);
    for (const uint32_t item : bags.items)
      shares[item] += 1.0 / static_cast<double>(bags.items.size());
  }

  // The part of the bags that are in the class of their kind, the classes being named either way.
  double Agreement(const LatentClasses& classes) const {
    size_t same = 0;
    for (size_t i = 0; i < kinds.size(); ++i) same += classes.of_bag[i] == kinds[i] ? 1 : 0;
    return static_cast<double>(std::max(same, kinds.size() - same)) /
           static_cast<double>(kinds.size());
  }

  Bags bags;
  std::vector<uint32_t> kinds;
  std::vector<double> shares;
};

// Labels that are right for 70 in 100 bags.
std::vector<uint32_t> Hints(const Planted& planted, std::mt19937* random) {
  std::vector<uint32_t> labels = planted.kinds;
  for (uint32_t& label : labels)
    if ((*random)() % 100 < 30) label ^= 1;
  return labels;
}

void CheckCounts(const Bags& bags, const LatentClasses& classes) {
  std::vector<float> items(size_t{kItems} * classes.num_classes, 0);
  std::vector<float> in_class(classes.num_classes, 0);
  for (size_t bag = 0; bag < bags.size(); ++bag) {
    const uint32_t c = classes.of_bag[bag];
    CHECK(c < classes.num_classes);
    ++in_class[c];
    for (uint32_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i)
      items[bags.items[i] * classes.num_classes + c] += bags.weights.empty() ? 1 : bags.weights[i];
  }
  CHECK(items == classes.item_counts);
  CHECK(in_class == classes.bag_counts);
}

}  // namespace

TEST(two_planted_kinds_are_told_apart) {
  for (const bool weighted : {false, true}) {
    std::mt19937 random(1);
    const Planted planted(2000, 10, weighted, &random);
    const LatentClasses classes =
        FitClasses(planted.bags, planted.shares, Hints(planted, &random), 2, 20, 10);
    CHECK(planted.Agreement(classes) > 0.98);
    CheckCounts(planted.bags, classes);
  }
}

TEST(classes_that_are_known_sort_other_bags) {
  std::mt19937 random(2);
  const Planted first(2000, 10, false, &random), second(500, 10, false, &random);
  LatentClasses classes = FitClasses(first.bags, first.shares, Hints(first, &random), 2, 20, 10);
  classes = ContinueClasses(second.bags, first.shares, std::move(classes), 20, 1);
  CHECK_EQ(classes.of_bag.size(), size_t{500});
  CHECK(second.Agreement(classes) > 0.98);
  CheckCounts(second.bags, classes);
}

TEST(the_same_bags_and_labels_give_the_same_classes) {
  std::mt19937 random(3);
  const Planted planted(500, 30, false, &random);
  const std::vector<uint32_t> labels = Hints(planted, &random);
  const LatentClasses one = FitClasses(planted.bags, planted.shares, labels, 2, 20, 5);
  const LatentClasses other = FitClasses(planted.bags, planted.shares, labels, 2, 20, 5);
  CHECK(one.of_bag == other.of_bag);
  CHECK(one.item_counts == other.item_counts);
}

TEST(empty_bags_and_classes_that_nothing_is_in_do_no_harm) {
  std::mt19937 random(4);
  Planted planted(50, 10, false, &random);
  for (int i = 0; i < 20; ++i) {
    planted.bags.offsets.push_back(planted.bags.offsets.back());
    planted.kinds.push_back(0);
  }
  const LatentClasses classes =
      FitClasses(planted.bags, planted.shares, std::vector<uint32_t>(70, 3), 8, 20, 4);
  CheckCounts(planted.bags, classes);
}

int main() { return sparselogits::testing::RunAll(); }
