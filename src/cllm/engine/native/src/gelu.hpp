// GELU and its slope of a vector; formulas: engine/gelu.py and docs/derivations/gelu.md.
#pragma once
#include "vectormath.hpp"

namespace cllm {

enum class Gelu { tanh, erf };

template <Gelu form, class V> struct GeluOf {
  using A = scalar_t<V>;
  using C = Coefficients<A>;
  static constexpr A LINEAR = A(1.5957691216057308), CUBIC = A(0.044715 * 1.5957691216057308);  // 2√(2/π)
  // e^(∓2u) is exactly 0 and ∞ from here on, and s exactly 1 and 0; x³ and the exponent must not overflow.
  static constexpr A SATURATED = sizeof(A) == 4 ? A(11) : A(22);

  static V saturated(V x) {
    x = x < -SATURATED ? fill<V>(-SATURATED) : x;  // a NaN stays
    return x > SATURATED ? fill<V>(SATURATED) : x;
  }

  // s = 1/(1 + e^(−2u)) for |x| ≤ SATURATED. The exponent is formed in units of ln 2, so that nothing is subtracted but
  // its whole part; vexp would spend as much again on arguments whose error is not already that of a product.
  static V logistic(V x) {
    constexpr double LOG2_E = 1.44269504088896340736;
    const V t = (x * x * A(-LOG2_E * 0.044715 * 1.5957691216057308) + A(-LOG2_E * 1.5957691216057308)) * x;
    const V shifted = t + C::ROUND, n = shifted - C::ROUND;
    const V r = (t - n) * A(0.693147180559945309417);
    const V power = r * r * polynomial(r, C::EXP) + r + A(1);
    return A(1) / (A(1) + scale(power, n, bit_cast<bits_t<V>>(shifted) - bit_cast<bits_t<V>>(fill<V>(C::ROUND))));
  }
  static V cumulative(V x) { return (verf(x * A(0.70710678118654752)) + A(1)) * A(0.5); }  // Φ

  static V value(V x) {
    if constexpr (form == Gelu::erf) return x * cumulative(x);
    return x * logistic(saturated(x));
  }
  static V slope(V x) {
    if constexpr (form == Gelu::erf) return cumulative(x) + x * (vexp(x * x * A(-0.5)) * A(0.39894228040143268));
    x = saturated(x);
    const V s = logistic(x);
    return s * (A(1) + x * (x * x * (3 * CUBIC) + LINEAR) * (A(1) - s));
  }
};

}  // namespace cllm
