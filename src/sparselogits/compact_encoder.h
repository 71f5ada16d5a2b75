// Turns blocks into the symbols of the compact codec: chooses the class of each position, and hands
// every symbol to a sink - bits, or the counts of a trainer.
#pragma once

#include <vector>

#include "sparselogits/compact_costs.h"

namespace sparselogits {

// Where symbols go.
class SymbolSink {
 public:
  virtual ~SymbolSink() = default;
  virtual void BeginStretch() {}
  virtual void PutSymbol(compact::Family family, uint32_t context, uint32_t symbol) = 0;
  virtual void PutBits(uint64_t value, int width) = 0;
};

class CompactEncoder {
 public:
  // The content's codes are used only by Encode, and to weigh classes where they are there.
  // REQUIRES: the content outlives the encoder.
  explicit CompactEncoder(const ModelContent& content);

  // Appends the content of a block. False, with nothing appended, where a symbol has no code.
  bool Encode(const BlockView& block, bool store_tokens, Bytes* out);
  // The same symbols for a sink.
  void Describe(const BlockView& block, bool store_tokens, SymbolSink* sink);

 private:
  struct Code {
    uint16_t bits;
    uint8_t length;  // 0: none
  };
  struct Codes {
    std::vector<uint32_t> first;  // where the code of each context starts
    std::vector<Code> codes;
  };
  struct Item {
    uint32_t id;
    uint32_t value;  // count, or the weight's bits
    CompactCosts::Place place;
  };
  class CodedSink;

  void ChooseClasses(const BlockView& block);
  // The context of a position's class.
  uint32_t ClassBefore(size_t position) const {
    return position % compact::kStretch == 0 ? content_.num_classes() : classes_[position - 1];
  }
  void PutCoded(const BlockView& block, bool store_tokens, CodedSink* sink);
  template <typename Sink>
  void PutBlock(const BlockView& block, bool store_tokens, Sink* sink);
  template <typename Sink>
  void PutPosition(const BlockView& block, bool store_tokens, size_t position, size_t entry,
                   Sink* sink);
  void PlaceItems(const BlockView& block, size_t position, size_t entry);
  template <typename Sink>
  void PutCounts(Sink* sink);
  template <typename Sink>
  void PutIds(uint32_t c, Sink* sink);
  template <typename Sink>
  void PutToken(uint32_t token, uint32_t c, Sink* sink);

  const ModelContent& content_;
  CompactCosts costs_;
  std::vector<uint16_t> class_costs_;  // (num_classes + 1, stride): of a class after another
  Codes codes_[compact::kNumFamilies];

  // Of the block at work.
  std::vector<uint32_t> classes_;
  std::vector<Item> unsorted_, items_;
  std::vector<int32_t> keys_, ranks_;
};

}  // namespace sparselogits
