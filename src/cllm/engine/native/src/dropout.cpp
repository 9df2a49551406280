// Dropout masks of hidden sites by the counter-based generator; definition in engine/dropout.py.
#include "philox.hpp"

// mask[rows·columns][channels]: 1 where the word is ≥ threshold; rows count from first_row.
CLLM_API void dropout_mask(int64_t rows, int64_t columns, int64_t channels, int64_t seed, int64_t step,
                           int64_t first_row, int64_t c3, int64_t threshold, uint8_t* mask) {
  cllm::parallel([=](int t, int count) {
    const cllm::Range r = cllm::part(rows * columns, t, count);
    for (int64_t i = r.begin; i < r.end; ++i) {
      uint8_t* to = mask + i * channels;
      cllm::philox_row(uint32_t(seed), uint32_t(step), 0, (channels + 3) / 4, uint32_t(i % columns),
                       uint32_t(first_row + i / columns), uint32_t(c3), [=](int64_t c, uint32_t word) {
                         if (c < channels) to[c] = word >= threshold;
                       });
    }
  });
}
