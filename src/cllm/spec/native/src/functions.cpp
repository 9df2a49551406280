// exp and tanh of balls.
//
// Numbers inside have M = L + 1 limbs of fraction: one more than the result, so that the errors made here, below
// 2^(−64L − 31) relatively, disappear beside the result's last place. `ulp` is 2^(−64M). The constants come from Arb
// (spec/elementary.py), each rounded down to M limbs of fraction.
#include <cstring>

#include "limbs.hpp"

namespace slices {
namespace {

constexpr int MORE = 16;  // working limbs, at most
constexpr double INVERSE_LN2 = 1.4426950408889634;

// ln2: M limbs. powers: exp(i/2^8)/4, exp(i/2^16)/2, exp(i/2^24)/2 for i < 256. inverse: 1/k! for k = 0 … terms − 1,
// of which 2 … are read; 2^(−24·terms)/terms! is below 1 ulp.
struct Tables {
  const Limb *ln2, *powers, *inverse;
  int64_t terms;
};

// out ≈ a·b/2^(64n): at most 2 below it.
template <int N>
void high(Limb* out, const Limb* a, const Limb* b, int n) {
  Limb t[2 * (N ? N : MORE)];
  multiply<N>(t, a, b, n, (N ? N : n) - 2);
  std::copy(t + n, t + 2 * n, out);
}

inline void high(Limb* out, const Limb* a, const Limb* b, int n) {
  switch (n) {
    case 1: return high<1>(out, a, b, n);
    case 2: return high<2>(out, a, b, n);
    case 3: return high<3>(out, a, b, n);
    case 4: return high<4>(out, a, b, n);
    case 5: return high<5>(out, a, b, n);
    case 6: return high<6>(out, a, b, n);
    case 7: return high<7>(out, a, b, n);
    case 8: return high<8>(out, a, b, n);
    default: return high<0>(out, a, b, n);
  }
}

// a (n + 1 limbs) −= q·d for a signed q.
inline void subtract_multiple(Limb* a, const Limb* d, int n, int64_t q) {
  Limb product[MORE + 2];
  const Limb size = q < 0 ? Limb(0) - Limb(q) : Limb(q);
  Limb carry = 0;
  for (int i = 0; i < n; i++) {
    const Wide t = Wide(d[i]) * size + carry;
    product[i] = Limb(t);
    carry = Limb(t >> 64);
  }
  product[n] = carry;
  if (q < 0) add(a, product, n + 1);
  else subtract(a, product, n + 1);
}

// exp(x) = m·2^(power + 5 − 64M)·(1 + θ), |θ| < 2^(32 − 64M), for x = g/2^(64M), |x| < 2^31, g of M + 1 limbs (used up).
//
// x = power·ln 2 + r with 0 ≤ r < 1, wrong by at most |power| + 3 ulp: one for g itself, |power| + 1 for ln 2 rounded
// down. r = i/2^8 + j/2^16 + k/2^24 + s with s < 2^(−24); exp(s) = 1 + s + s²h₂, where h_k = Σ_{l≥k} s^(l−k)/l!
// = 1/k! + s·h_{k+1} is formed in as many limbs as s^k leaves of it, each wrong by at most 5 of its last places, that is
// 5 ulp in exp(s). The three products with the table are each wrong by at most 2 ulp, and the table's entries by 1 ulp;
// all of these numbers are ≥ 2^(−5). Together, relatively, less than (2^31 + 3) + 2·(5·terms + 3) + 3·(32·2 + 4) ulp.
inline int64_t exponential(Limb* g, int M, const Tables& tables, Limb* m) {
  const double x = double(int64_t(g[M])) + double(g[M - 1]) * 0x1p-64;
  int64_t power = int64_t(std::floor(x * INVERSE_LN2));
  subtract_multiple(g, tables.ln2, M, power);
  Limb one[MORE + 1] = {};
  std::copy(tables.ln2, tables.ln2 + M, one);
  for (; g[M] >> 63; power--) add(g, one, M + 1);
  for (; g[M] != 0; power++) subtract(g, one, M + 1);

  const Limb top = g[M - 1];
  g[M - 1] = top & ((Limb(1) << 40) - 1);
  Limb h[MORE] = {}, t[MORE];
  for (int64_t k = tables.terms - 1; k >= 2; k--) {
    const int n = std::max<int64_t>(1, M - 24 * k / 64), low = M - n;
    high(t, g + low, h + low, n);
    std::copy(tables.inverse + k * M + low, tables.inverse + (k + 1) * M, h + low);
    add(h + low, t, n);
  }
  high(h, g, h, M);
  high(h, g, h, M);
  add(h, g, M);
  for (int i = 0; i < M; i++) h[i] = h[i] >> 1 | (i + 1 < M ? h[i + 1] << 63 : Limb(1) << 63);  // exp(s)/2
  const Limb* powers = tables.powers;
  high(m, h, powers + (512 + (top >> 40 & 255)) * M, M);
  high(m, m, powers + (256 + (top >> 48 & 255)) * M, M);
  high(m, m, powers + (top >> 56) * M, M);
  return power;
}

// q·2^(−48·steps) = num/den up to 4·2^(−48·steps), for 0 ≤ num ≤ 1 ≤ den ≤ 2.5, of M limbs of fraction and one more.
// r is what is left after each digit, exactly; false when it is not below 4·den at the end.
inline bool quotient(Limb* q, const Limb* num, const Limb* den, int M, int64_t steps) {
  Limb r[MORE + 3] = {}, d[MORE + 2] = {}, digit[MORE + 2];
  std::copy(num, num + M + 1, r);
  std::copy(den, den + M + 1, d);
  std::fill(q, q + M + 2, 0);
  const double inverse = 1 / (double(d[M]) + double(d[M - 1]) * 0x1p-64);
  for (int64_t step = 0; step < steps; step++) {
    Limb next[MORE + 3];
    shift(next, M + 2, r, M + 2, 48);
    std::copy(next, next + M + 2, r);
    const int64_t guess = int64_t((double(int64_t(r[M])) + double(r[M - 1]) * 0x1p-64) * inverse);
    subtract_multiple(r, d, M + 1, guess);
    shift(next, M + 2, q, M + 2, 48);
    std::fill(digit, digit + M + 2, guess < 0 ? ~Limb(0) : 0);
    digit[0] = Limb(guess);
    std::copy(next, next + M + 2, q);
    add(q, digit, M + 2);
  }
  return int64_t(r[M]) < 4 && int64_t(r[M]) >= -4;
}

}  // namespace
}  // namespace slices

using namespace slices;

// out = exp(a), whose last place is 2^exponent_out = unit; |a| < 2^31.
SLICES_API int64_t slices_exp(int64_t m, int64_t n, int64_t L, const View* a, int64_t exponent, const Limb* ln2,
                              const Limb* powers, const Limb* inverse, int64_t terms, int64_t exponent_out, double unit,
                              const View* out) {
  const int M = int(L) + 1;
  if (M + 1 > MORE) return FAILED;
  const Tables tables{ln2, powers, inverse, terms};
  const Magnitude size(int(L), exponent_out);
  const double lost = std::ldexp(1.0, -64 * int(L) - 31);
  int64_t most = -1;
  bool fits = true;
#pragma omp parallel for schedule(static) reduction(max : most) reduction(&& : fits) if (m * n > PARALLEL / 16)
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      Limb g[MORE + 2], e[MORE + 1];
      shift(g, M + 1, a->at(i, j), int(L), exponent + 64 * M);
      e[M] = 0;
      const int64_t left = exponential(g, M, tables, e) + 5 - 64 * M - exponent_out;
      fits = fits && bits(e, M + 1) + left <= 64 * L - 2;
      Limb* y = out->at(i, j);
      shift(y, int(L), e, M + 1, left);
      const double value = up(size(y, int(L)) + unit), rad = a->radius(i, j);
      // |exp(x + δ) − exp(x)| ≤ exp(x)·(ρ + ρ²) for |δ| ≤ ρ ≤ 1
      out->radius(i, j) =
          rad <= 1 ? up(value * up(rad + rad * rad) + value * lost + unit) : std::numeric_limits<double>::infinity();
      most = std::max(most, bits(y, int(L)));
    }
  return fits ? most : FAILED;
}

// out = tanh(a), in units of 2^(2 − 64L); |a| < 2^30. tanh|x| = (1 − t)/(1 + t) with t = exp(−2|x|).
// t is wrong by at most 2^(−64L − 31), tanh by twice that, the quotient by 2^(2 − 64M): less than one unit, and the last
// rounding is another. tanh′ = 1 − tanh² ≤ 1, so that in a ball of radius ρ around x it is at most 1 − (|tanh x| − ρ)².
SLICES_API int64_t slices_tanh(int64_t m, int64_t n, int64_t L, const View* a, int64_t exponent, const Limb* ln2,
                               const Limb* powers, const Limb* inverse, int64_t terms, double unit, const View* out) {
  const int M = int(L) + 1;
  if (M + 1 > MORE) return FAILED;
  const Tables tables{ln2, powers, inverse, terms};
  const Magnitude size(int(L), 2 - 64 * L);
  const int64_t steps = (64 * M + 47) / 48;
  int64_t most = -1;
  bool fits = true;
#pragma omp parallel for schedule(static) reduction(max : most) reduction(&& : fits) if (m * n > PARALLEL / 16)
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      const Limb* x = a->at(i, j);
      Limb* y = out->at(i, j);
      if (is_zero(x, int(L)) && a->radius(i, j) == 0) {
        std::fill(y, y + L, 0);
        out->radius(i, j) = 0;
        continue;
      }
      Limb g[MORE + 2], e[MORE + 2] = {}, t[MORE + 2] = {}, num[MORE + 2] = {}, q[MORE + 2];
      shift(g, M + 1, x, int(L), exponent + 64 * M + 1);
      if (!sign(x, int(L))) negate(g, M + 1);
      const int64_t power = exponential(g, M, tables, e);
      shift(t, M + 1, e, M + 1, power + 5);
      num[M] = 1;
      subtract(num, t, M + 1);
      if (num[M] >> 63) std::fill(num, num + M + 1, 0);  // a t above 1 is wrong by at least this
      t[M] += 1;
      fits = fits && quotient(q, num, t, M, steps);
      if (sign(x, int(L))) negate(q, M + 2);
      shift(y, int(L), q, M + 2, 64 * L - 2 - 48 * steps);
      const double rad = a->radius(i, j), least = std::max(size(y, int(L)) * (1 - 0x1p-40) - 2 * unit - rad, 0.0);
      out->radius(i, j) = up(rad * std::min(1 - least * least + 0x1p-40, 1.0) + 2 * unit);
      most = std::max(most, bits(y, int(L)));
    }
  return fits ? most : FAILED;
}
