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
  model->Derive();
  *out = std::move(model);
  return Status::Ok();
}

void CompactModel::Derive() {
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
    auto at = static_cast<uint32_t>(ids_.size());
    ids_.insert(ids_.end(), c.ids.begin(), c.ids.end());
    ids_.resize(at + std::max(c.ids.size(), entries_of(c.own_bits)), kNoId);
    Bucket* bucket = of_class;
    for (const uint8_t bits : c.own_bits) {
      *bucket++ = {at, bits, bits > 0, false, 0};
      at += 1u << bits;
    }
    for (uint32_t i = 0; i < compact::kLocalBuckets; ++i)
      *bucket++ = {kLocalBase + i, 0, true, true, 0};
    at = 0;
    for (const uint8_t bits : c.global_bits) {
      *bucket++ = {at, bits, bits > 0, false, 0};
      at += 1u << bits;
    }
    *bucket++ = {kRawBase, static_cast<uint8_t>(packed::TokenBits(content_.format.vocab_size)),
                 true, false, 0};
    const uint32_t n = c.num_buckets();
    for (uint32_t b = 0; b < n; ++b)
      of_class[b].hazard = c.hazards[of_class[b].is_wide ? b : std::min(b + 1, n - 1)];
    num_buckets_.push_back(n);
    of_class += compact::kMaxBuckets;
  }

  for (size_t f = 0; f < compact::kNumFamilies; ++f) {
    const auto family = static_cast<compact::Family>(f);
    tables_.emplace_back(compact::ShapeOf(family, content_.format, num_classes()).width);
    for (const auto& lengths : content_.families[f].lengths) tables_.back().Add(lengths);
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
