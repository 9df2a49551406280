// Σ g² in float64, for the global norm: the same bits for any number of threads.
#include "optimiser.hpp"

namespace cllm {

constexpr int64_t NORM_BLOCK = 4096, LANES = 16;

template <class T> inline double number(T x) { return double(x); }
template <> inline double number(uint16_t x) { return double(widen(x)); }

// partial[b] = Σ over block b (4096 entries), 16 lanes side by side, then the lanes in a tree.
template <class T> void sum_of_squares(int64_t n, const T* g, double* partial) {
  const int64_t blocks = (n + NORM_BLOCK - 1) / NORM_BLOCK;
  parallel([=](int t, int count) {
    const Range r = part(blocks, t, count);
    for (int64_t b = r.begin; b < r.end; ++b) {
      const T* x = g + b * NORM_BLOCK;
      const int64_t size = std::min(NORM_BLOCK, n - b * NORM_BLOCK), whole = size / LANES * LANES;
      double lane[LANES] = {};
      for (int64_t i = 0; i < whole; i += LANES)
#pragma omp simd
        for (int64_t k = 0; k < LANES; ++k) {
          const double a = number(x[i + k]);
          lane[k] += a * a;
        }
      for (int64_t i = whole; i < size; ++i) lane[i - whole] += number(x[i]) * number(x[i]);
      for (int64_t half = LANES / 2; half; half /= 2)
        for (int64_t k = 0; k < half; ++k) lane[k] += lane[k + half];
      partial[b] = lane[0];
    }
  });
}

// The blocks in a tree, in place; the sum is partial[0].
inline void reduce(int64_t blocks, double* partial) {
  for (int64_t step = 1; step < blocks; step *= 2)
    for (int64_t b = 0; b + step < blocks; b += 2 * step) partial[b] += partial[b + step];
}

}  // namespace cllm

#define CLLM_NORM(T, S)                                                               \
  CLLM_API void sum_of_squares_##S(int64_t n, const T* g, double* partial) {          \
    cllm::sum_of_squares<T>(n, g, partial);                                           \
    cllm::reduce((n + cllm::NORM_BLOCK - 1) / cllm::NORM_BLOCK, partial);             \
  }
CLLM_NORM(float, f32)
CLLM_NORM(double, f64)
CLLM_NORM(uint16_t, bf16)
