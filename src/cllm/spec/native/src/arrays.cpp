// Entry by entry: sums, products, sums along rows, and the way from and to float64. Each kernel that makes an array
// returns the bits of its largest entry (|integer| ≤ 2^bits; −1: all are 0), or FAILED. unit: 2^exponent of the result,
// an upper bound of what rounding down loses.
#include "limbs.hpp"

namespace slices {
namespace {

template <int N>
int64_t sum_of_two(int64_t m, int64_t n, int64_t limbs, const View& a, int64_t shift_a, const View& b, int64_t shift_b,
                   bool minus, double unit, const View& out) {
  const int L = N ? N : int(limbs);
  int64_t most = -1;
#pragma omp parallel for schedule(static) reduction(max : most) if (m * n > PARALLEL)
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      const Limb *p = a.at(i, j), *q = b.at(i, j);
      Limb x[N ? N : MOST], y[N ? N : MOST];
      shift(x, L, p, L, shift_a);
      shift(y, L, q, L, shift_b);
      double rad = a.radius(i, j) + b.radius(i, j);
      if (shift_a < 0 && !is_zero(p, L)) rad += unit;
      if (shift_b < 0 && !is_zero(q, L)) rad += unit;
      if (minus) subtract(x, y, L);
      else add(x, y, L);
      std::copy(x, x + L, out.at(i, j));
      out.radius(i, j) = rad == 0 ? 0 : up(rad);
      most = std::max(most, bits(x, L));
    }
  return most;
}

template <int N>
int64_t product(int64_t m, int64_t n, int64_t limbs, const View& a, int64_t exponent_a, const View& b,
                int64_t exponent_b, int64_t right, double unit, const View& out) {
  const int L = N ? N : int(limbs);
  const Magnitude size_a(L, exponent_a), size_b(L, exponent_b);
  int64_t most = -1;
#pragma omp parallel for schedule(static) reduction(max : most) if (m * n > PARALLEL)
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      const Limb *p = a.at(i, j), *q = b.at(i, j);
      const double ra = a.radius(i, j), rb = b.radius(i, j);
      double rad = 0;
      if (ra != 0 || rb != 0) rad = up(size_a(p, L) * rb + ra * (size_b(q, L) + rb));
      Limb wide[2 * (N ? N : MOST)];
      multiply_signed<N>(wide, p, q, L);
      if (right > 0 && !is_zero(wide, 2 * L)) rad = up(rad + unit);
      shift(out.at(i, j), L, wide, 2 * L, -right);
      out.radius(i, j) = rad;
      most = std::max(most, bits(out.at(i, j), L));
    }
  return most;
}

template <int N>
int64_t row_sums(int64_t m, int64_t n, int64_t limbs, const View& a, int64_t right, double unit, const View& out) {
  const int L = N ? N : int(limbs);
  int64_t most = -1;
#pragma omp parallel for schedule(static) reduction(max : most) if (m * n > PARALLEL)
  for (int64_t i = 0; i < m; i++) {
    Limb total[(N ? N : MOST) + 1] = {}, term[(N ? N : MOST) + 1];
    double rad = 0;
    for (int64_t j = 0; j < n; j++) {
      const Limb* p = a.at(i, j);
      std::copy(p, p + L, term);
      term[L] = sign(p, L);
      add(total, term, L + 1);
      rad += a.radius(i, j);
    }
    if (right > 0 && !is_zero(total, L + 1)) rad += unit;
    shift(out.at(i, 0), L, total, L + 1, -right);
    out.radius(i, 0) = rad == 0 ? 0 : up(rad * (1 + double(n) * 0x1p-52));
    most = std::max(most, bits(out.at(i, 0), L));
  }
  return most;
}

}  // namespace
}  // namespace slices

using namespace slices;

// out = a·2^shift_a ± b·2^shift_b.
SLICES_API int64_t slices_add(int64_t m, int64_t n, int64_t L, const View* a, int64_t shift_a, const View* b,
                              int64_t shift_b, int64_t minus, double unit, const View* out) {
  SLICES_BY_LIMBS(L, sum_of_two, m, n, L, *a, shift_a, *b, shift_b, minus != 0, unit, *out)
}

// out = ⌊a·b / 2^right⌋.
SLICES_API int64_t slices_mul(int64_t m, int64_t n, int64_t L, const View* a, int64_t exponent_a, const View* b,
                              int64_t exponent_b, int64_t right, double unit, const View* out) {
  SLICES_BY_LIMBS(L, product, m, n, L, *a, exponent_a, *b, exponent_b, right, unit, *out)
}

// out (m×1) = ⌊Σ_j a / 2^right⌋; n < 2^40.
SLICES_API int64_t slices_rowsum(int64_t m, int64_t n, int64_t L, const View* a, int64_t right, double unit,
                                 const View* out) {
  SLICES_BY_LIMBS(L, row_sums, m, n, L, *a, right, unit, *out)
}

// out[i, j] ≥ |a|, with the ball's radius.
SLICES_API int64_t slices_magnitude(int64_t m, int64_t n, int64_t L, const View* a, int64_t exponent, double* out) {
  const Magnitude size(int(L), exponent);
#pragma omp parallel for schedule(static) if (m * n > PARALLEL)
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      const double x = size(a->at(i, j), int(L)) + a->radius(i, j);
      out[i * n + j] = x == 0 ? 0 : up(x);
    }
  return 0;
}

// found = {top, low}: every |x| < 2^top and is a multiple of 2^low; {0, 0} when all are 0. FAILED: not all are finite.
SLICES_API int64_t slices_range(int64_t count, const double* x, int64_t* found) {
  int64_t top = std::numeric_limits<int64_t>::min(), low = std::numeric_limits<int64_t>::max();
  bool finite = true;
#pragma omp parallel for schedule(static) reduction(max : top) reduction(min : low) reduction(&& : finite) \
    if (count > PARALLEL)
  for (int64_t i = 0; i < count; i++) {
    finite = finite && std::isfinite(x[i]);
    if (x[i] == 0 || !std::isfinite(x[i])) continue;
    int e;
    const int64_t whole = int64_t(std::ldexp(std::frexp(x[i], &e), 53));
    top = std::max<int64_t>(top, e);
    low = std::min<int64_t>(low, e - 53 + __builtin_ctzll(uint64_t(whole)));
  }
  const bool none = top < low;
  found[0] = none ? 0 : top;
  found[1] = none ? 0 : low;
  return finite ? 0 : FAILED;
}

// out = ⌊x / 2^exponent⌋, m×n with the strides given; entries that lose something get the radius `unit`.
SLICES_API int64_t slices_from_floats(int64_t m, int64_t n, int64_t L, const double* x, int64_t row, int64_t column,
                                      int64_t exponent, double unit, const View* out) {
  int64_t most = -1;
  bool finite = true;
#pragma omp parallel for schedule(static) reduction(max : most) reduction(&& : finite) if (m * n > PARALLEL)
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      const double value = x[i * row + j * column];
      finite = finite && std::isfinite(value);
      int e = 0;
      const Limb whole = Limb(std::isfinite(value) ? int64_t(std::ldexp(std::frexp(value, &e), 53)) : 0);
      const int64_t s = e - 53 - exponent;
      shift(out->at(i, j), int(L), &whole, 1, s);
      const bool lost = whole != 0 && s < 0 && (s <= -64 || whole << (64 + s) != 0);
      out->radius(i, j) = lost ? unit : 0;
      most = std::max(most, bits(out->at(i, j), int(L)));
    }
  return finite ? most : FAILED;
}

// |a − (high + low)| ≤ rad, and |high| ≤ |a|: the leading 53 bits of the middle, and the next 53.
SLICES_API int64_t slices_to_floats(int64_t m, int64_t n, int64_t L, const View* a, int64_t exponent, double* high,
                                 double* low, double* rad) {
#pragma omp parallel for schedule(static) if (m * n > PARALLEL)
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      const int64_t at = i * n + j;
      Limb x[MOST];
      std::copy(a->at(i, j), a->at(i, j) + L, x);
      const bool negative = sign(x, int(L));
      if (negative) negate(x, int(L));
      int t = int(L) - 1;
      while (t > 0 && x[t] == 0) t--;
      double h = 0, l = 0, r = a->radius(i, j);
      if (x[t] != 0) {
        const int b = __builtin_clzll(x[t]);  // the leading 128 bits, the first of them set
        Wide lead = Wide(x[t]) << 64 | (t > 0 ? x[t - 1] : 0);
        lead = lead << b | (b && t > 1 ? x[t - 2] >> (64 - b) : 0);
        const int64_t e = exponent + 64 * (t - 1) - b;
        const double first = double(Limb(lead >> 75)), second = double(Limb(lead >> 22) & ((Limb(1) << 53) - 1));
        h = std::ldexp(first, int(std::clamp<int64_t>(e + 75, -3000, 3000)));
        l = std::ldexp(second, int(std::clamp<int64_t>(e + 22, -3000, 3000)));
        r = up(r + h * 0x1p-105 + 3 * TINY);  // each may be rounded, or flushed, near underflow
      }
      high[at] = negative ? -h : h;
      low[at] = negative ? -l : l;
      rad[at] = r;
    }
  return 0;
}
