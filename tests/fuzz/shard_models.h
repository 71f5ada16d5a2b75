// Shards with compact blocks as the corpus keeps them: the header names a fixed model by number
// where its digest will be, and a compact block's payload is a script of records. So they outlive
// changes of the trainer and of the codec.
#pragma once

#include "shard_parts.h"
#include "sparselogits/codec.h"

namespace sparselogits::fuzz {

// Makes a header ask for the compact codec with a fixed model.
void NameModel(uint8_t number, std::array<uint8_t, kHeaderLength>* header);

// The shard that is meant, all that follows from its parts made right, and its model. Bytes that
// name no model by number stay as they are.
Bytes WithModel(ByteSpan bytes, Models* models);

}  // namespace sparselogits::fuzz
