// libFuzzer's mutations of shards: of a part of the file, after which what follows from the parts
// is made right, most of the time. Inputs stay plain shard files.
#include <random>

#include "fuzz_support.h"
#include "shard_models.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace sparselogits::fuzz {
namespace {

constexpr size_t kMaxContent = size_t{1} << 16;

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  uint32_t Below(size_t n) { return static_cast<uint32_t>(random_() % n); }
  bool Once(uint32_t in) { return Below(in) == 0; }

  // libFuzzer's own mutation of some bytes; `grow` allows more of them.
  void Mutate(Bytes* bytes, size_t grow) {
    const size_t size = bytes->size();
    bytes->resize(size + grow);
    bytes->resize(LLVMFuzzerMutate(bytes->data(), size, size + grow));
  }
  template <size_t N>
  void MutateInPlace(std::array<uint8_t, N>* bytes) {
    Bytes copy(bytes->begin(), bytes->end());
    Mutate(&copy, 0);
    std::copy(copy.begin(), copy.end(), bytes->begin());
  }

  // A field of the header or of a frame header becomes some other number.
  void ChangeField(uint8_t* field, size_t width) {
    uint64_t value = 0;
    std::memcpy(&value, field, width);
    switch (Below(5)) {
      case 0: ++value; break;
      case 1: --value; break;
      case 2: value ^= uint64_t{1} << Below(8 * width); break;
      case 3: value = Below(256); break;
      default: value = Once(2) ? random_() : ~uint64_t{0}; break;
    }
    std::memcpy(field, &value, width);
  }

  void MutateFrame(PartFrame* frame) {
    std::optional<Bytes> content = UnwrapPayload(*frame, kMaxContent);
    switch (Below(6)) {
      case 0: ChangeField(frame->header.data() + 16, 4); break;  // num_items
      case 1: ChangeField(frame->header.data() + 20, 4); break;  // num_entries
      case 2:
        if (Once(3)) ChangeField(frame->header.data() + 4 * Below(6), 4);
        break;
      case 3:  // wrap, or unwrap
        if (content) {
          frame->header[5] = 0;
          frame->payload = *content;
        } else {
          WrapPayload(Bytes(frame->payload), frame);
        }
        return;
      default: break;
    }
    if (content && !Once(4)) {
      Mutate(&*content, 64);
      WrapPayload(*content, frame);
    } else {
      Mutate(&frame->payload, 64);
    }
  }

  void MutateFrames(std::vector<PartFrame>* frames) {
    if (frames->empty()) return;
    const auto any = [&] { return frames->begin() + Below(frames->size()); };
    switch (Below(12)) {
      case 0: frames->insert(any(), PartFrame(*any())); break;
      case 1: frames->erase(any()); break;
      case 2: std::iter_swap(any(), any()); break;
      default: MutateFrame(&*any()); break;
    }
  }

  void MutateHeader(std::array<uint8_t, kHeaderLength>* header) {
    switch (Below(6)) {
      case 0: ChangeField(header->data() + 40, 4); break;  // vocab_size
      case 1: ChangeField(header->data() + 44, 4); break;  // rounds
      case 2: ChangeField(header->data() + 48 + Below(5), 1); break;
      case 3: (*header)[16] ^= 1; break;  // lz4_frames
      case 4: {                           // another kind of record
        const auto dtype = static_cast<uint8_t>(Below(4));
        (*header)[48] = dtype == 0 ? 0 : 1;
        (*header)[49] = dtype;
        break;
      }
      default: MutateInPlace(header); break;
    }
  }

  // Its blocks become compact ones, or some of them.
  void MakeCompact(ShardParts* parts) {
    NameModel(static_cast<uint8_t>(Below(256)), &parts->header);
    for (PartFrame& frame : parts->frames)
      if (frame.is(FrameType::kBlock) && !Once(4))
        frame.header[kCodecOffset] = static_cast<uint8_t>(CodecId::kCompact);
  }

  Bytes MutateShard(ShardParts parts) {
    do {
      const uint32_t what = Below(17);
      if (what < 2)
        MutateHeader(&parts.header);
      else if (what == 2 && parts.footer)
        MutateInPlace(&*parts.footer);
      else if (what == 3 && !parts.tail.empty())
        Mutate(&parts.tail, 8);
      else if (what == 4)
        MakeCompact(&parts);
      else
        MutateFrames(&parts.frames);
    } while (Once(3));
    Restamping restamping;
    restamping.lengths = !Once(16);
    restamping.totals = !Once(8);
    restamping.index = !Once(4);
    restamping.checksums = !Once(32);
    return parts.Build(restamping);
  }

 private:
  std::mt19937 random_;
};

}  // namespace
}  // namespace sparselogits::fuzz

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace sparselogits;
  using namespace sparselogits::fuzz;
  Mutator mutator(seed);
  const auto parts = ShardParts::Parse({data, size});
  if (!parts || mutator.Once(32)) return LLVMFuzzerMutate(data, size, max_size);
  const Bytes mutated = mutator.MutateShard(*parts);
  if (mutated.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::copy(mutated.begin(), mutated.end(), data);
  return mutated.size();
}
