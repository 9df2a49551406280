// What the optimiser kernels share. They are compiled without contraction of a·b + c (CMakeLists.txt), so that every
// level, every thread count and the torch twins give the same bits: each operation is rounded once, in the order written.
#pragma once
#include "common.hpp"

namespace cllm {

// The constants of one AdamW step, each computed in double and rounded once.
template <class T> struct AdamW {
  T scale, b1, c1, b2, c2, shrink, rate, root, eps;
  AdamW(double scale_, double lr, double beta1, double beta2, double eps_, double decay, double correction1,
        double correction2)
      : scale(T(scale_)), b1(T(beta1)), c1(T(1 - beta1)), b2(T(beta2)), c2(T(1 - beta2)), shrink(T(1 - lr * decay)),
        rate(T(lr / correction1)), root(T(1 / std::sqrt(correction2))), eps(T(eps_)) {}
  T first(T m, T g) const { return m * b1 + g * c1; }
  T second(T v, T g) const { return v * b2 + g * c2 * g; }
  T weight(T w, T m, T v) const { return w * shrink - m * rate / (std::sqrt(v) * root + eps); }
};

// bfloat16 of a float that is not NaN, to nearest even: without the branch of bf16(float), so that loops vectorise.
inline uint16_t shadow_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

inline float widen(uint16_t bits) {
  const uint32_t u = uint32_t(bits) << 16;
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

}  // namespace cllm
