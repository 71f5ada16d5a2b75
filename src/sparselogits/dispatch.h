// Run-time choice of instructions: the marked function and all that it inlines is compiled for the
// baseline and for x86-64-v3 (BMI, AVX2), and the loader picks. One source, the same results.
// SPARSELOGITS_ONE_INSTRUCTION_SET builds without the choice, for comparing the two.
#pragma once

#include <cstdlib>  // __GLIBC__: the loader's choice needs ifunc symbols, which musl lacks

#if defined(__x86_64__) && (__GNUC__ >= 12) && !defined(__clang__) && defined(__GLIBC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&                      \
    !defined(SPARSELOGITS_ONE_INSTRUCTION_SET)
#define SPARSELOGITS_FASTEST_INSTRUCTIONS \
  __attribute__((target_clones("default", "arch=x86-64-v3"), flatten))
#else
#define SPARSELOGITS_FASTEST_INSTRUCTIONS
#endif
