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
      classes->item_counts[bags.items[i] * k + c] += bags.weight(i);
  }
}

// log2 of how probable a bag is in each class, but for what is the same in all of them.
class Scorer {
 public:
  Scorer(const LatentClasses& classes, std::span<const double> item_shares, double prior)
      : num_classes_(classes.num_classes), gains_(classes.item_counts.size()) {
    const size_t k = num_classes_;
    std::vector<double> totals(k, prior);
    for (size_t i = 0; i < gains_.size(); ++i) totals[i % k] += classes.item_counts[i];
    std::vector<float> shift(k);
    for (size_t c = 0; c < k; ++c) {
      shift[c] = static_cast<float>(std::log2(totals[c]));
      of_class_.push_back(std::log2(classes.bag_counts[c] + 1));
    }
    for (size_t item = 0; item < item_shares.size(); ++item) {
      const auto share = static_cast<float>(item_shares[item]);
      for (size_t c = 0; c < k; ++c)
        gains_[item * k + c] =
            std::log2(classes.item_counts[item * k + c] / share + static_cast<float>(prior)) -
            shift[c];
    }
  }

  void Score(const Bags& bags, size_t bag, float* scores) const {
    std::copy(of_class_.begin(), of_class_.end(), scores);
    for (uint32_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
      const float* const gains = &gains_[bags.items[i] * num_classes_];
      for (size_t c = 0; c < num_classes_; ++c) scores[c] += bags.weight(i) * gains[c];
    }
  }

 private:
  size_t num_classes_;
  std::vector<float> gains_;     // (items, classes): bits by which an item is cheaper than overall
  std::vector<float> of_class_;  // what a class is worth before any item
};

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
  classes.of_bag.resize(bags.size());
  for (int round = 0; round < rounds; ++round) {
    const Scorer scorer(classes, item_shares, prior);
    std::vector<float> scores(classes.num_classes);
    for (size_t bag = 0; bag < bags.size(); ++bag) {
      scorer.Score(bags, bag, scores.data());
      classes.of_bag[bag] =
          static_cast<uint32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    }
    CountItems(bags, item_shares.size(), &classes);
  }
  return classes;
}

void ExpectCounts(const Bags& bags, std::span<const double> item_shares, double prior,
                  LatentClasses* classes) {
  const size_t k = classes->num_classes;
  const Scorer scorer(*classes, item_shares, prior);
  std::vector<float> scores(k);
  std::fill(classes->item_counts.begin(), classes->item_counts.end(), 0.0f);
  for (size_t bag = 0; bag < bags.size(); ++bag) {
    scorer.Score(bags, bag, scores.data());
    const float best = *std::max_element(scores.begin(), scores.end());
    float total = 0;
    for (float& score : scores) total += score = std::exp2(score - best);
    for (float& score : scores) score /= total;
    for (uint32_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
      float* const counts = &classes->item_counts[bags.items[i] * k];
      for (size_t c = 0; c < k; ++c) counts[c] += scores[c] * bags.weight(i);
    }
  }
}

}  // namespace sparselogits
