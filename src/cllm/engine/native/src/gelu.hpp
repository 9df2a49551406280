// GELU and its slope of a vector; formulas: engine/gelu.py and docs/derivations/gelu.md.
#pragma once
#include "vectormath.hpp"

namespace cllm {

enum class Gelu { tanh, erf };

template <class V> inline V clamp(V x, scalar_t<V> low, scalar_t<V> high) {
  x = x < low ? fill<V>(low) : x;  // a NaN passes both
  return x > high ? fill<V>(high) : x;
}

template <Gelu form, class V> struct GeluOf {
  using A = scalar_t<V>;
  static constexpr A LINEAR = A(1.5957691216057308), CUBIC = A(0.044715 * 1.5957691216057308);  // 2√(2/π)
  static constexpr A SATURATED = A(64);  // s is exactly 0 or 1 from here on; x³ must not overflow

  static V logistic(V x) { return A(1) / (A(1) + vexp(-((x * x * CUBIC + LINEAR) * x))); }  // s
  static V cumulative(V x) { return (verf(x * A(0.70710678118654752)) + A(1)) * A(0.5); }   // Φ

  static V value(V x) {
    if constexpr (form == Gelu::erf) return x * cumulative(x);
    return x * logistic(clamp(x, -SATURATED, SATURATED));
  }
  static V slope(V x) {
    if constexpr (form == Gelu::erf) return cumulative(x) + x * (vexp(x * x * A(-0.5)) * A(0.39894228040143268));
    x = clamp(x, -SATURATED, SATURATED);
    const V s = logistic(x);
    return s * (A(1) + x * (x * x * (3 * CUBIC) + LINEAR) * (A(1) - s));
  }
};

}  // namespace cllm
