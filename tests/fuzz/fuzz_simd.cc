// The code that has SIMD paths, built for the baseline, for x86-64-v3 and as it ships: the same
// bits, and the same errors, whatever the input.
#include "fuzz_support.h"
#include "simd_adapter.h"

namespace {

using simd_adapter::Slice;
using simd_adapter::Variant;

bool CanRunV3() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("fma");
#else
  return true;  // built for the baseline here
#endif
}

void CompareWith(const Variant& expected, const Variant& found, const char* what, Slice a,
                 Slice b) {
  if (a.size == b.size && (a.size == 0 || std::memcmp(a.data, b.data, a.size) == 0)) return;
  std::fprintf(stderr, "%s: %s and %s differ\n", what, expected.name, found.name);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!CanRunV3()) {
    std::puts("this processor has no AVX2: nothing to compare");
    std::exit(0);
  }
  if (size == 0) return 0;
  const uint8_t what = data[0] < 192 ? data[0] % 3 : 3;
  const sparselogits::ByteSpan rest(data + 1, size - 1);
  const Variant& baseline = *SparselogitsSimd_baseline();
  for (const Variant* other : {SparselogitsSimd_v3(), SparselogitsSimd_core()}) {
    const auto compare = [&](const char* name, auto function) {
      CompareWith(baseline, *other, name, (baseline.*function)(rest.data(), rest.size()),
                  (other->*function)(rest.data(), rest.size()));
    };
    switch (what) {
      case 0: compare("decode", &Variant::decode); break;
      case 1: compare("hash", &Variant::hash); break;
      case 3: compare("decode_compact", &Variant::decode_compact); break;
      default: compare("sample", &Variant::sample); break;
    }
  }
  return 0;
}
