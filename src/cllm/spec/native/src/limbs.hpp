// Integers of n limbs in two's complement, lowest limb first; and what a ball array is to the kernels.
//
// A ball is an integer times 2^exponent (one exponent an array), and a radius in float64. Kernels are templated on the
// number of limbs L for small L, so that loops over limbs unroll; N = 0 stands for "as many as the argument says".
// Radii are sums and products of numbers ≥ 0, enlarged by `up` for their own roundings: right in any order of
// evaluation to nearest, and also where subnormals are flushed to zero.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#define SLICES_API extern "C" __attribute__((visibility("default")))
#define SLICES_BY_LIMBS(L, F, ...)        \
  switch (L) {                            \
    case 1: return F<1>(__VA_ARGS__);     \
    case 2: return F<2>(__VA_ARGS__);     \
    case 3: return F<3>(__VA_ARGS__);     \
    case 4: return F<4>(__VA_ARGS__);     \
    case 5: return F<5>(__VA_ARGS__);     \
    case 6: return F<6>(__VA_ARGS__);     \
    case 7: return F<7>(__VA_ARGS__);     \
    default: return F<0>(__VA_ARGS__);    \
  }

namespace slices {

using Limb = uint64_t;
__extension__ typedef unsigned __int128 Wide;

constexpr int MOST = 64;               // limbs of an array, at most
constexpr double TINY = 0x1p-1022;     // the least normal float64
constexpr int64_t FAILED = -2;         // returned instead of a number of bits
constexpr int64_t PARALLEL = 2048;     // fewer entries are left to one thread

// m×n balls; strides are counted in limbs, and in float64.
struct View {
  Limb* limbs;
  double* rad;
  int64_t row, column, rad_row, rad_column;
  Limb* at(int64_t i, int64_t j) const { return limbs + i * row + j * column; }
  double& radius(int64_t i, int64_t j) const { return rad[i * rad_row + j * rad_column]; }
};

// An upper bound of a sum of up to 2^20 products of numbers ≥ 0, not all of them exact zeros, computed as x.
inline double up(double x) { return x * (1 + 0x1p-30) + TINY; }

inline Limb sign(const Limb* a, int n) { return Limb(0) - (a[n - 1] >> 63); }

inline bool is_zero(const Limb* a, int n) {
  Limb any = 0;
  for (int i = 0; i < n; i++) any |= a[i];
  return any == 0;
}

// The least b with |a| ≤ 2^b; −1 for 0.
inline int64_t bits(const Limb* a, int n) {
  const Limb fill = sign(a, n);
  for (int i = n - 1; i >= 0; i--)
    if (const Limb y = a[i] ^ fill) return 64 * i + 64 - __builtin_clzll(y);
  return fill ? 0 : -1;
}

// out (m limbs) = ⌊a·2^s⌋, a of n limbs; what does not fit is lost at the top.
inline void shift(Limb* out, int m, const Limb* a, int n, int64_t s) {
  const int64_t words = s >> 6;
  const int b = int(s & 63);
  const Limb fill = sign(a, n);
  const auto at = [&](int64_t i) { return i < 0 ? Limb(0) : i < n ? a[i] : fill; };
  if (b == 0)
    for (int i = 0; i < m; i++) out[i] = at(i - words);
  else
    for (int i = 0; i < m; i++) out[i] = at(i - words) << b | at(i - words - 1) >> (64 - b);
}

// a += b, or a −= b; the carry out is lost.
inline void add(Limb* a, const Limb* b, int n) {
  Limb carry = 0;
  for (int i = 0; i < n; i++) {
    const Wide t = Wide(a[i]) + b[i] + carry;
    a[i] = Limb(t);
    carry = Limb(t >> 64);
  }
}
inline void subtract(Limb* a, const Limb* b, int n) {
  Limb carry = 1;
  for (int i = 0; i < n; i++) {
    const Wide t = Wide(a[i]) + ~b[i] + carry;
    a[i] = Limb(t);
    carry = Limb(t >> 64);
  }
}
inline void negate(Limb* a, int n) {
  Limb carry = 1;
  for (int i = 0; i < n; i++) {
    a[i] = ~a[i] + carry;
    carry = carry && a[i] == 0;
  }
}

// out (2n limbs) = a·b, unsigned. `from`: columns below it are left out, and out is 0 there: for from < n the product is
// too small by less than n·2^(64·from + 64).
template <int N>
inline __attribute__((always_inline)) void multiply(Limb* out, const Limb* a, const Limb* b, int limbs, int from = 0) {
  const int n = N ? N : limbs;
#pragma GCC unroll 16
  for (int i = 0; i < n; i++) out[i] = 0;
#pragma GCC unroll 16
  for (int i = 0; i < n; i++) {
    Limb carry = 0;
#pragma GCC unroll 16
    for (int j = std::max(0, from - i); j < n; j++) {
      const Wide t = Wide(a[i]) * b[j] + out[i + j] + carry;
      out[i + j] = Limb(t);
      carry = Limb(t >> 64);
    }
    out[i + n] = carry;
  }
}

// out (2n limbs) = a·b, signed: −2^(64n) is a negative number's excess as an unsigned one.
template <int N>
inline void multiply_signed(Limb* out, const Limb* a, const Limb* b, int limbs) {
  const int n = N ? N : limbs;
  multiply<N>(out, a, b, n);
  if (sign(a, n)) subtract(out + n, b, n);
  if (sign(b, n)) subtract(out + n, a, n);
}

// Upper bounds of |a|·2^exponent as float64.
struct Magnitude {
  double scale[MOST];  // of the two limbs t, t − 1, as one number
  explicit Magnitude(int n, int64_t exponent) {
    for (int t = 0; t < n; t++) {
      const int64_t e = std::clamp<int64_t>(64 * (t - 1) + exponent, -1022, 1024);
      scale[t] = std::ldexp(1.0, int(e));
    }
  }
  double operator()(const Limb* a, int n) const {
    const Limb fill = sign(a, n);
    for (int t = n - 1; t >= 0; t--)
      if (const Limb y = a[t] ^ fill) {
        const double low = (t ? double(a[t - 1] ^ fill) + 1 : 0) + (fill && !t ? 0x1p64 : 0);  // |a| = y, or y + 1
        return std::max((double(y) * 0x1p64 + low) * (1 + 0x1p-50) * scale[t], TINY);
      }
    return fill ? std::max(0x1p64 * scale[0], TINY) : 0;
  }
};

}  // namespace slices
