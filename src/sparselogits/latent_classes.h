// Sorts positions into classes whose ids resemble each other: a mixture of unigram distributions,
// fitted by hard expectation-maximisation (Celeux and Govaert 1992, "A classification EM
// algorithm").
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sparselogits {

// Positions as bags of items (ids by rank: 0 ... num_items - 1).
struct Bags {
  std::vector<uint32_t> offsets = {0};
  std::vector<uint32_t> items;
  std::vector<float> weights;  // of each item; empty: 1 each

  size_t size() const { return offsets.size() - 1; }
  float weight(size_t i) const { return weights.empty() ? 1.0f : weights[i]; }
};

struct LatentClasses {
  uint32_t num_classes = 0;
  std::vector<uint32_t> of_bag;
  std::vector<float> item_counts;  // (num_items, num_classes)
  std::vector<float> bag_counts;   // (num_classes)
};

// `prior` is the number of items of the overall distribution that each class starts with.
// `labels` start the search; all of them are below num_classes.
LatentClasses FitClasses(const Bags& bags, std::span<const double> item_shares,
                         std::vector<uint32_t> labels, uint32_t num_classes, double prior,
                         int rounds);

// Replaces the counts of items by expected ones: each bag counts in every class by how probable
// that is. What the lists of ids are made from; a bag still has one class.
void ExpectCounts(const Bags& bags, std::span<const double> item_shares, double prior,
                  LatentClasses* classes);

// Rounds from classes that are known, whose bags may be others.
LatentClasses ContinueClasses(const Bags& bags, std::span<const double> item_shares,
                              LatentClasses classes, double prior, int rounds);

}  // namespace sparselogits
