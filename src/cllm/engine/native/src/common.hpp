// What every engine kernel shares: element types, static work partition, the export macro.
//
// Rules of the room. Plain C ABI, one function an op and a scalar type (suffix _f32, _f64, _bf16); sizes are int64_t,
// strides are counted in elements. Kernels are templated on the scalar, so that all code runs in float64 too, where the
// certificate can see a wrong constant. Work is cut by thread number and shape alone and every sum has a fixed order: the
// same shape, level and thread count give the same bits. No allocation that the caller could have made: scratch comes
// in as a pointer. Any size works; tails are handled.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(_OPENMP)
#include <omp.h>
#endif

#define CLLM_API extern "C" __attribute__((visibility("default")))

namespace cllm {

// bfloat16: the upper half of a float32, rounded to nearest even (NaN stays NaN).
struct bf16 {
  uint16_t bits;
  bf16() = default;
  explicit bf16(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    bits = (u & 0x7fffffffu) > 0x7f800000u ? uint16_t((u >> 16) | 0x40u)
                                           : uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const {
    uint32_t u = uint32_t(bits) << 16;
    float x;
    std::memcpy(&x, &u, 4);
    return x;
  }
};

// The type in which a kernel of operand type T computes and accumulates.
template <class T> struct accumulator { using type = T; };
template <> struct accumulator<bf16> { using type = float; };
template <class T> using acc_t = typename accumulator<T>::type;

struct Range { int64_t begin, end; };

// The part of [0, n) that thread `t` of `threads` works on, cut at multiples of `grain`.
inline Range part(int64_t n, int t, int threads, int64_t grain = 1) {
  const int64_t blocks = (n + grain - 1) / grain, base = blocks / threads, extra = blocks % threads;
  const int64_t first = t * base + std::min<int64_t>(t, extra), count = base + (t < extra ? 1 : 0);
  return {std::min(n, first * grain), std::min(n, (first + count) * grain)};
}

inline int threads() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// body(t, threads) on every thread of the pool.
template <class F> inline void parallel(F body) {
#if defined(_OPENMP)
#pragma omp parallel
  body(omp_get_thread_num(), omp_get_num_threads());
#else
  body(0, 1);
#endif
}

}  // namespace cllm
