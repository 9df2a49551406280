// AdamW with 8-bit moments, on plain float32 weights or on a split master; formulas and the error bound in
// engine/moments.py and docs/derivations/moments.md.
//
// Blocks of 256 entries. m = ±M·(k/127)², M = max |m| of the block; v = V·(k/255)⁴, V = max v. k is one of the two codes
// around the value, drawn so that the expected value is the value (a word of entry number and step decides): rounding
// to nearest would hold a slowly falling v where it is.
#include "optimiser.hpp"

namespace cllm {

constexpr int64_t BLOCK = 256;
constexpr float SMALLEST = 0x1p-100f;  // below it a block's moments are 0: 1/M must stay finite
constexpr float M_CODES = 127.0f, V_CODES = 255.0f;

// lowbias32 (Wellons 2018): a bijection of 32-bit words without visible order.
inline uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}

inline float joined(uint16_t high, int16_t low) {
  const uint32_t u = (uint32_t(high) << 16) + uint32_t(int32_t(low));
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

struct Halves {
  uint16_t* high;
  int16_t* low;
};

inline float gradient(float g) { return g; }
inline float gradient(uint16_t g) { return widen(g); }

inline float weight(const float* w, int64_t i) { return w[i]; }
inline void put(float* w, int64_t i, float x) { w[i] = x; }
inline float weight(const Halves& w, int64_t i) { return joined(w.high[i], w.low[i]); }
inline void put(const Halves& w, int64_t i, float x) {  // round half up on the bits: the residual always fits
  uint32_t u;
  std::memcpy(&u, &x, 4);
  const uint32_t high = (u + 0x8000u) >> 16;
  w.high[i] = uint16_t(high);
  w.low[i] = int16_t(uint16_t(u - (high << 16)));
}

template <class W, class G>
void block(int64_t n, W w, int64_t at, const G* g, int8_t* mc, float* ms, uint8_t* vc, float* vs, uint32_t first,
           uint32_t key, const AdamW<float>& c) {
  float m[BLOCK], v[BLOCK], top_m = 0, top_v = 0;
  const float M = *ms * (1.0f / (M_CODES * M_CODES)), V = *vs * (1.0f / (V_CODES * V_CODES * V_CODES * V_CODES));
#pragma omp simd reduction(max : top_m, top_v)
  for (int64_t i = 0; i < n; ++i) {
    const float x = gradient(g[i]) * c.scale;
    const float k = float(mc[i]), q = float(vc[i]) * float(vc[i]);
    const float mi = c.first(M * (k * std::fabs(k)), x), vi = c.second(V * (q * q), x);
    m[i] = mi;
    v[i] = vi;
    put(w, at + i, c.weight(weight(w, at + i), mi, vi));
    const float size = std::fabs(mi);
    top_m = size > top_m ? size : top_m;
    top_v = vi > top_v ? vi : top_v;
  }
  *ms = top_m = top_m < SMALLEST ? 0.0f : top_m;
  *vs = top_v = top_v < SMALLEST ? 0.0f : top_v;
  const float to_m = top_m > 0 ? M_CODES * M_CODES / top_m : 0.0f;
  const float to_v = top_v > 0 ? 1.0f / top_v : 0.0f;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t word = mixed((first + uint32_t(i)) ^ key);
    const float um = float(int32_t(word >> 16)) * 0x1p-16f, uv = float(int32_t(word & 0xffffu)) * 0x1p-16f;
    // m: between k² and (k + 1)², k = ⌊√x⌋
    const float xm = std::fabs(m[i]) * to_m;
    float k = std::floor(std::sqrt(xm));
    k = k < M_CODES ? k : M_CODES;
    k += um * (k + k + 1.0f) < xm - k * k ? 1.0f : 0.0f;
    k = k < M_CODES ? k : M_CODES;
    mc[i] = int8_t(int32_t(m[i] < 0 ? -k : k));
    // v: between k⁴ and (k + 1)⁴, k = ⌊⁴√x⌋; 0 stays 0 and nothing else becomes it
    const float xv = v[i] * to_v;
    float l = std::floor(std::sqrt(std::sqrt(xv)) * V_CODES);
    l = l < V_CODES ? l : V_CODES;
    const float below = (l * l) * (l * l), next = ((l + 1.0f) * (l + 1.0f)) * ((l + 1.0f) * (l + 1.0f));
    l += uv * (next - below) < xv * (V_CODES * V_CODES * V_CODES * V_CODES) - below ? 1.0f : 0.0f;
    l = l < V_CODES ? l : V_CODES;
    l = xv > 0.0f && l < 1.0f ? 1.0f : l;
    vc[i] = uint8_t(int32_t(l));
  }
}

template <class W, class G>
void adamw8(int64_t n, W w, const G* g, int8_t* mc, float* ms, uint8_t* vc, float* vs, int64_t first, int64_t step,
            const AdamW<float> c) {
  const uint32_t key = mixed(uint32_t(step));
  parallel([=](int t, int count) {
    const Range r = part((n + BLOCK - 1) / BLOCK, t, count);
    for (int64_t b = r.begin; b < r.end; ++b) {
      const int64_t at = b * BLOCK;
      block(std::min(BLOCK, n - at), w, at, g + at, mc + at, ms + b, vc + at, vs + b, uint32_t(first + at), key, c);
    }
  });
}

}  // namespace cllm

#define CLLM_ADAMW8(G, S)                                                                                            \
  CLLM_API void adamw8_##S(int64_t n, float* w, uint16_t* high, int16_t* low, const G* g, int8_t* mc, float* ms,     \
                           uint8_t* vc, float* vs, int64_t first, int64_t step, double scale, double lr,            \
                           double beta1, double beta2, double eps, double decay, double correction1,                \
                           double correction2) {                                                                     \
    const cllm::AdamW<float> c(scale, lr, beta1, beta2, eps, decay, correction1, correction2);                       \
    if (w) cllm::adamw8(n, w, g, mc, ms, vc, vs, first, step, c);                                                    \
    else cllm::adamw8(n, cllm::Halves{high, low}, g, mc, ms, vc, vs, first, step, c);                                \
  }
CLLM_ADAMW8(float, f32)
CLLM_ADAMW8(uint16_t, bf16)
