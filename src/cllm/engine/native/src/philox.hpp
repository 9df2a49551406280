// Philox4x32-10 (Salmon et al. 2011); the same words as engine/philox.py and spec/philox.py.
#pragma once
#include "common.hpp"

namespace cllm {

constexpr int PHILOX_LANES = 16;  // counters at a time

// Words of counters (c0, c1, c2, c3), c0 = begin … end − 1: word(4·c0 + w, output word w), in order.
template <class F>
inline void philox_row(uint32_t key0, uint32_t key1, int64_t begin, int64_t end, uint32_t c1, uint32_t c2, uint32_t c3,
                       F word) {
  for (int64_t at = begin; at < end; at += PHILOX_LANES) {
    uint32_t x[4][PHILOX_LANES], k0 = key0, k1 = key1;
    for (int l = 0; l < PHILOX_LANES; ++l) {
      x[0][l] = uint32_t(at + l);
      x[1][l] = c1;
      x[2][l] = c2;
      x[3][l] = c3;
    }
    for (int round = 0; round < 10; ++round) {
#pragma omp simd
      for (int l = 0; l < PHILOX_LANES; ++l) {
        const uint64_t p0 = uint64_t(x[0][l]) * 0xD2511F53u, p1 = uint64_t(x[2][l]) * 0xCD9E8D57u;
        x[0][l] = uint32_t(p1 >> 32) ^ x[1][l] ^ k0;
        x[2][l] = uint32_t(p0 >> 32) ^ x[3][l] ^ k1;
        x[1][l] = uint32_t(p1);
        x[3][l] = uint32_t(p0);
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const int count = int(std::min<int64_t>(PHILOX_LANES, end - at));
    for (int l = 0; l < count; ++l)
      for (int w = 0; w < 4; ++w) word(4 * (at + l) + w, x[w][l]);
  }
}

}  // namespace cllm
