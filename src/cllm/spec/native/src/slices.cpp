// Integers to digits for exact products on float64 BLAS, and the sums of digit products back to integers
// (spec/slices.py).
#include <cfenv>
#include <cstdlib>

#include "limbs.hpp"

namespace slices {
namespace {

constexpr int DIGIT = 22;
constexpr int64_t HALF = int64_t(1) << (DIGIT - 1), BASE = 2 * HALF;

}  // namespace
}  // namespace slices

using namespace slices;

// 1 when float64 subnormals survive arithmetic on this thread (flush-to-zero and denormals-are-zero are off).
SLICES_API int64_t slices_subnormals_survive() {
  volatile double tiny = 4.9406564584124654e-324, half = 0.5, two = 2.0;
  volatile double kept = tiny * two * half;
  return kept == tiny && std::fegetround() == FE_TONEAREST;
}

// Balanced digits: ⌊a·2^left⌋ = Σ_p digit[p]·2^(22(count − 1 − p)), |digit| ≤ 2^21, into out[i, p, j] with the strides
// given. FAILED when a number has more than `count` digits.
SLICES_API int64_t slices_digits(int64_t m, int64_t n, int64_t L, const View* a, int64_t left, int64_t count, double* out,
                                 int64_t row, int64_t place, int64_t column) {
  const int whole = int((DIGIT * count) / 64 + 2);  // limbs of the shifted integer, with room for its sign
  if (whole > MOST) return FAILED;
  bool fits = true;
#pragma omp parallel for schedule(static) reduction(&& : fits) if (m * n > PARALLEL)
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      const Limb* p = a->at(i, j);
      Limb x[MOST];
      shift(x, whole, p, int(L), left);
      fits = fits && bits(p, int(L)) + left < DIGIT * count;
      int64_t carry = 0;
      for (int64_t k = 0; k < count; k++) {
        const int64_t word = DIGIT * k / 64, b = DIGIT * k % 64;
        Limb field = x[word] >> b;
        if (b + DIGIT > 64) field |= x[word + 1] << (64 - b);
        int64_t digit = int64_t(field & (BASE - 1)) + carry;
        if (k == count - 1) {  // with the sign
          if (sign(x, whole)) digit -= BASE;
          fits = fits && std::abs(digit) <= HALF;
        } else {
          carry = digit >= HALF;
          if (carry) digit -= BASE;
        }
        out[i * row + (count - 1 - k) * place + j * column] = double(digit);
      }
    }
  return fits ? 0 : FAILED;
}

// The leading digits of floats: x·2^left ≈ Σ_p digit[p]·2^(22(count − 1 − p)), as above, within half of the last place;
// each step is exact. Returns 1 when something is left, 0 when not; FAILED when |x|·2^left > 2^(22·count − 1).
SLICES_API int64_t slices_float_digits(int64_t m, int64_t n, const double* x, int64_t row_x, int64_t column_x, int64_t left,
                                       int64_t count, double* out, int64_t row, int64_t place, int64_t column) {
  const double first = std::ldexp(1.0, int(left - DIGIT * (count - 1)));
  bool fits = true, exact = true;
#pragma omp parallel for schedule(static) reduction(&& : fits, exact) if (m * n > PARALLEL)
  for (int64_t i = 0; i < m; i++) {
    bool good = true, whole = true;
    for (int64_t j = 0; j < n; j++) {
      double rest = x[i * row_x + j * column_x] * first;
      good &= std::fabs(rest) <= double(HALF);
      for (int64_t p = 0; p < count; p++) {
        const double digit = (rest + 0x1.8p52) - 0x1.8p52;  // to an integer
        out[i * row + p * place + j * column] = digit;
        rest = (rest - digit) * double(BASE);
      }
      whole &= rest == 0;
    }
    fits = fits && good;
    exact = exact && whole;
  }
  return fits ? !exact : FAILED;
}

// out = ⌊Σ_s 2^(22(orders − 1 − s)) Σ_c sums[c, s, i, j] · 2^left⌋. Returns the bits, or FAILED when a sum is not an
// integer of at most 53 bits, or a result does not fit.
SLICES_API int64_t slices_recombine(int64_t m, int64_t n, int64_t L, int64_t chunks, int64_t orders, const double* sums,
                                    int64_t left, Limb* out) {
  const int whole = int((DIGIT * (orders - 1) + 64) / 64 + 2);  // a sum of 2^8 chunks is below 2^62
  if (whole > 2 * MOST || chunks > 256) return FAILED;
  int64_t most = -1;
  bool exact = true;
#pragma omp parallel for schedule(static) reduction(max : most) reduction(&& : exact) if (m * n > PARALLEL)
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      Limb total[2 * MOST] = {};
      int64_t carry = 0;
      for (int64_t k = 0; k < orders; k++) {  // the lowest place first
        int64_t digit = carry;
        for (int64_t c = 0; c < chunks; c++) {
          const double sum = sums[((c * orders + orders - 1 - k) * m + i) * n + j];
          const int64_t integer = std::fabs(sum) <= 0x1p53 ? int64_t(sum) : 0;
          exact = exact && double(integer) == sum;
          digit += integer;
        }
        const int64_t word = DIGIT * k / 64, b = DIGIT * k % 64;
        if (k == orders - 1) {  // all that is left, with its sign
          for (int w = int(word); w < whole; w++) {
            const Limb high = digit < 0 ? ~Limb(0) : 0;
            const Limb part = w == word ? Limb(digit) << b
                              : w == word + 1 && b ? Limb(digit >> (64 - b))
                                                   : high;
            total[w] |= part;
          }
        } else {
          const Limb field = Limb(digit) & (BASE - 1);
          total[word] |= field << b;
          if (b + DIGIT > 64) total[word + 1] |= field >> (64 - b);
          carry = digit >> DIGIT;
        }
      }
      Limb* y = out + (i * n + j) * L;
      const int64_t b = bits(total, whole);
      exact = exact && (b < 0 || b + left <= 64 * L - 2);
      shift(y, int(L), total, whole, left);
      most = std::max(most, bits(y, int(L)));
    }
  return exact ? most : FAILED;
}
