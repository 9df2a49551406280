// Gradient buffers in bfloat16: sums are made in float32 and rounded once when they are added (engine/rounded.py).
#include "optimiser.hpp"

namespace cllm {

inline uint16_t rounded(float x) { return bf16(x).bits; }  // NaN stays NaN: the guard must see it

}  // namespace cllm

// sum ← bf16(sum + part), n entries.
CLLM_API void add_rounded(int64_t n, uint16_t* sum, const float* part) {
  cllm::parallel([=](int t, int count) {
    const cllm::Range r = cllm::part(n, t, count, 64);
#pragma omp simd
    for (int64_t i = r.begin; i < r.end; ++i) sum[i] = cllm::rounded(cllm::widen(sum[i]) + part[i]);
  });
}

// table[target[k]] ← bf16(table[target[k]] + Σ rows[order[i]], i = starts[k] … starts[k+1] − 1) for each k < groups,
// the rows added in that order in float32. The targets differ from each other.
CLLM_API void scatter_rounded(int64_t groups, int64_t width, const int64_t* starts, const int64_t* order,
                              const int64_t* target, const float* rows, uint16_t* table) {
  constexpr int64_t PIECE = 512;
  cllm::parallel([=](int t, int count) {
    const cllm::Range r = cllm::part(groups, t, count);
    float sum[PIECE];
    for (int64_t k = r.begin; k < r.end; ++k)
      for (int64_t at = 0; at < width; at += PIECE) {
        const int64_t n = std::min(PIECE, width - at);
        uint16_t* out = table + target[k] * width + at;
        for (int64_t j = 0; j < n; ++j) sum[j] = 0;
        for (int64_t i = starts[k]; i < starts[k + 1]; ++i) {
          const float* row = rows + order[i] * width + at;
#pragma omp simd
          for (int64_t j = 0; j < n; ++j) sum[j] += row[j];
        }
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) out[j] = cllm::rounded(cllm::widen(out[j]) + sum[j]);
      }
  });
}
