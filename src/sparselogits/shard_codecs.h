// The codecs that a shard's header asks for.
#pragma once

#include <memory>

#include "sparselogits/codec.h"
#include "sparselogits/shard_layout.h"

namespace sparselogits {

// Finds the model that the header names among `models`. An error says which is missing.
Status MakeCodecs(const ShardHeader& header, const Models& models, std::unique_ptr<CodecSet>* out);

}  // namespace sparselogits
