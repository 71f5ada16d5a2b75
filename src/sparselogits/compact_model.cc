#include "sparselogits/compact_model.h"

#include <cstdio>

#include "sparselogits/xxh64.h"

namespace sparselogits {

Status CompactModel::Parse(ByteSpan bytes, ModelPtr* out) {
  std::shared_ptr<CompactModel> model(new CompactModel);
  SPARSELOGITS_RETURN_IF_ERROR(ParseModel(bytes, &model->content_));
  model->bytes_.assign(bytes.begin(), bytes.end());
  model->digest_ = Xxh64(bytes);
  if (model->digest_ == 0)  // in a shard's header that means none
    return Status::Corruption("a model whose digest is 0").Field("model_digest").At(0);
  model->DeriveBuckets();
  model->DeriveCodes();
  *out = std::move(model);
  return Status::Ok();
}

// What kNoId becomes in 16 bits; no id below it is lost there.
constexpr uint32_t kNarrowNoId = 0xFFFF;

void CompactModel::DeriveBuckets() {
  const std::vector<uint32_t>& global = content_.global_ids;
  const auto entries_of = [](const std::vector<uint8_t>& bits) {
    size_t entries = 0;
    for (const uint8_t b : bits) entries += size_t{1} << b;
    return entries;
  };
  size_t global_entries = global.size();
  for (const auto& c : content_.classes)
    global_entries = std::max(global_entries, entries_of(c.global_bits));
  ids_ = global;
  ids_.resize(global_entries, kNoId);

  buckets_.resize(content_.classes.size() * compact::kMaxBuckets);
  Bucket* of_class = buckets_.data();
  for (const auto& c : content_.classes) {
    const auto own = static_cast<uint32_t>(ids_.size());
    ids_.insert(ids_.end(), c.ids.begin(), c.ids.end());
    ids_.resize(own + entries_of(c.own_bits), kNoId);
    Bucket* bucket = of_class;
    const auto add = [&bucket](uint32_t base, int bits, bool is_wide) {
      bucket->base = base;
      bucket->bits = static_cast<uint8_t>(bits);
      bucket->step = is_wide ? 0 : 1;
      ++bucket;
    };
    const auto add_list = [&add](uint32_t at, const std::vector<uint8_t>& list) {
      for (const uint8_t bits : list) {
        add(at, bits, bits > 0);
        at += 1u << bits;
      }
    };
    add_list(own, c.own_bits);
    add_list(0, c.global_bits);
    add(kRawBase, packed::TokenBits(content_.format.vocab_size), true);

    const auto context = [&c](uint32_t b, bool is_wide) {
      return static_cast<uint16_t>((is_wide ? kGapContexts : 0) + compact::kMaxHazard -
                                   c.hazards[b]);
    };
    const uint32_t n = c.num_buckets();
    for (uint32_t b = 0; b < n; ++b) {
      const uint32_t next = b + of_class[b].step;
      of_class[b].context = context(next, of_class[b].step == 0);
    }
    num_buckets_.push_back(n);
    first_contexts_.push_back(context(0, false));
    of_class += compact::kMaxBuckets;
  }
  if (content_.format.vocab_size < kNarrowNoId) {
    for (const uint32_t id : ids_) narrow_ids_.push_back(static_cast<uint16_t>(id));
    ids_ = {};
  }
}

void CompactModel::DeriveCodes() {
  for (size_t f = 0; f < compact::kNumFamilies; ++f) {
    int width =
        1;  // of the longest code that there is: small tables stay in the processor's caches
    for (const auto& lengths : content_.families[f].lengths)
      width = std::max<int>(width, *std::max_element(lengths.begin(), lengths.end()));
    tables_.emplace_back(width);
    for (const auto& lengths : content_.families[f].lengths) tables_.back().Add(lengths);
  }
  const auto start_of = [this](compact::Family f, uint32_t context) {
    return uint32_t{content_.family(f).map[context]} << tables(f).width();
  };
  for (const bool is_wide : {false, true})
    for (uint32_t sum = 0; sum < kGapContexts; ++sum)
      gap_codes_[(is_wide ? kGapContexts : 0) + sum] =
          start_of(compact::Family::kGap, compact::GapContext(sum, is_wide));
  for (const auto family : {compact::Family::kCount, compact::Family::kCountPair}) {
    if (content_.family(family).map.empty()) continue;
    for (uint32_t level = 0; level < compact::kCountLevels; ++level)
      for (uint32_t excess = 0; excess <= kMaxExcess; ++excess)
        count_codes_[family == compact::Family::kCountPair].push_back(
            start_of(family, compact::CountLevel(excess) * compact::kCountLevels + level));
  }
}

std::string ModelFileName(uint64_t digest) {
  char name[32];
  std::snprintf(name, sizeof(name), "model-%016llx.slm", static_cast<unsigned long long>(digest));
  return name;
}

const char* FieldThatModelLacks(const CompactModel& model, const RecordFormat& format) {
  const RecordFormat& own = model.format();
  if (own.vocab_size != format.vocab_size) return "vocab_size";
  if (own.rounds != format.rounds) return "rounds";
  if (own.value_kind != format.value_kind) return "value_kind";
  if (own.weight_dtype != format.weight_dtype) return "weight_dtype";
  if (format.store_tokens && !own.store_tokens) return "store_tokens";
  return nullptr;
}

}  // namespace sparselogits
