// Fits the codes of a compact model to what its encoder has to say.
#pragma once

#include <span>
#include <vector>

#include "sparselogits/compact_model.h"

namespace sparselogits {

// Sets the content's families of codes from the symbols of these blocks. Gaps are told by lists of
// ids, and are counted only where those lists were not made from: in the blocks held out.
void TrainCodes(const std::vector<BlockView>& learnt, const std::vector<BlockView>& held_out,
                ModelContent* content);

// How contexts share codes: each context's code, at most `max_codes` of them, by clustering what
// the contexts counted. (contexts, symbols) counts, row-major.
std::vector<uint8_t> ShareCodes(std::span<const uint64_t> counts, uint32_t num_symbols,
                                uint32_t max_codes);

}  // namespace sparselogits
