#include "sparselogits/latent_classes.h"

#include <algorithm>
#include <cmath>

namespace sparselogits {
namespace {

void CountItems(const Bags& bags, size_t num_items, LatentClasses* classes) {
  const size_t k = classes->num_classes;
  classes->item_counts.assign(num_items * k, 0);
  classes->bag_counts.assign(k, 0);
  for (size_t bag = 0; bag < bags.size(); ++bag) {
    const uint32_t c = classes->of_bag[bag];
    ++classes->bag_counts[c];
    for (uint32_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i)
      classes->item_counts[bags.items[i] * k + c] += bags.weights.empty() ? 1.0f : bags.weights[i];
  }
}

// How many bits an item is cheaper in a class than overall.
std::vector<float> Gains(const LatentClasses& classes, std::span<const double> item_shares,
                         double prior) {
  const size_t k = classes.num_classes;
  std::vector<double> totals(k, prior);
  for (size_t i = 0; i < classes.item_counts.size(); ++i) totals[i % k] += classes.item_counts[i];
  std::vector<float> shift(k);
  for (size_t c = 0; c < k; ++c) shift[c] = static_cast<float>(std::log2(totals[c]));
  std::vector<float> gains(classes.item_counts.size());
  for (size_t item = 0; item < item_shares.size(); ++item) {
    const auto share = static_cast<float>(item_shares[item]);
    for (size_t c = 0; c < k; ++c)
      gains[item * k + c] =
          std::log2(classes.item_counts[item * k + c] / share + static_cast<float>(prior)) -
          shift[c];
  }
  return gains;
}

}  // namespace

LatentClasses FitClasses(const Bags& bags, std::span<const double> item_shares,
                         std::vector<uint32_t> labels, uint32_t num_classes, double prior,
                         int rounds) {
  LatentClasses classes;
  classes.num_classes = num_classes;
  classes.of_bag = std::move(labels);
  CountItems(bags, item_shares.size(), &classes);
  return ContinueClasses(bags, item_shares, std::move(classes), prior, rounds);
}

LatentClasses ContinueClasses(const Bags& bags, std::span<const double> item_shares,
                              LatentClasses classes, double prior, int rounds) {
  const size_t k = classes.num_classes;
  classes.of_bag.resize(bags.size());
  std::vector<float> scores(k);
  for (int round = 0; round < rounds; ++round) {
    const std::vector<float> gains = Gains(classes, item_shares, prior);
    for (size_t bag = 0; bag < bags.size(); ++bag) {
      for (size_t c = 0; c < k; ++c) scores[c] = std::log2(classes.bag_counts[c] + 1);
      for (uint32_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
        const float* const gain = &gains[bags.items[i] * k];
        const float weight = bags.weights.empty() ? 1.0f : bags.weights[i];
        for (size_t c = 0; c < k; ++c) scores[c] += weight * gain[c];
      }
      classes.of_bag[bag] =
          static_cast<uint32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    }
    CountItems(bags, item_shares.size(), &classes);
  }
  return classes;
}

}  // namespace sparselogits
