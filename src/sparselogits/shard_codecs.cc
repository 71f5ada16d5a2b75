#include "sparselogits/shard_codecs.h"

#include <algorithm>

#include "sparselogits/compact_model.h"

namespace sparselogits {

Status MakeCodecs(const ShardHeader& header, const Models& models, std::unique_ptr<CodecSet>* out) {
  ModelPtr model;
  if (header.model_digest != 0) {
    const auto bad = [&](const std::string& what) {
      return Status::Corruption("the shard needs the codec model " +
                                ModelFileName(header.model_digest) + ", " + what)
          .Field("model_digest")
          .At(96);
    };
    const auto found = std::find_if(models.begin(), models.end(), [&](const ModelPtr& m) {
      return m->digest() == header.model_digest;
    });
    if (found == models.end()) return bad("which is missing");
    if (const char* const field = FieldThatModelLacks(**found, header.config.format))
      return bad("which was made for another " + std::string(field));
    model = *found;
  }
  *out = std::make_unique<CodecSet>(header.config.format, std::move(model));
  return Status::Ok();
}

}  // namespace sparselogits
