// exp, tanh and erf of a vector of floats or doubles (or of one): branch-free, the same bits in every lane.
//
// Largest errors against mpmath (tests/engine/test_native_vectormath.py): 1 ulp for exp, 2 ulp for tanh and erf, in
// float32 and float64. NaN stays NaN, infinities give the limits; exp is right down to the denormal numbers. Tails:
// partial load and store round the same vector function, so that an element's bits do not depend on its place.
//
// The polynomials are weighted minimax fits (Lawson's iteration on Chebyshev nodes, 50 digits); the weight makes the
// error relative to the result, at most 4e-9 in float32 and 3e-18 in float64 before rounding.
#pragma once
#include "simd.hpp"

namespace cllm {

// c[0] + c[1]·x + …, by Horner's rule.
template <class V, class T, size_t N> inline V polynomial(V x, const T (&c)[N]) {
  V y = fill<V>(c[N - 1]);
  for (size_t i = N - 1; i-- > 0;) y = y * x + c[i];
  return y;
}

template <class T> struct Coefficients;
template <> struct Coefficients<float> {
  static constexpr float LOWEST = -104.0f, HIGHEST = 89.0f;  // e^x is 0 below, ∞ above
  static constexpr float ROUND = 12582912.0f;                // 1.5·2²³: adding it rounds to an integer
  static constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440055e-4f;  // n·LN2_HIGH is exact
  static constexpr int BIAS = 127, MANTISSA = 23;
  static constexpr float EXP[] = {0.5f, 0.166665188507457253f, 0.0416662058816362765f, 0.00836888823174669681f,
                                  0.0013950483082908084f};  // (e^r − 1 − r)/r², |r| ≤ ½ ln 2
  static constexpr float TANH[] = {-0.333332838479540576f, 0.133314890933904987f, -0.0537433063332538321f,
                                   0.0206499334788089871f, -0.00571628394101900149f};  // (tanh x/x − 1)/x², in x²
  static constexpr float ERF[] = {0.1283791659126891f,    -0.376126271285150104f,   0.112836000846469238f,
                                  -0.0268544403634291226f, 0.0051895264523763588f, -0.000802075519874204798f,
                                  0.0000788880779122415188f};  // erf x/x − 1, in x², |x| ≤ 1
  static constexpr float ERFC[] = {5.36494105798281979f,    4.4181593605121642f,      0.923753017682932046f,
                                   0.0164871775886515706f,  -0.00354361671353406332f, 0.000712943122381352953f,
                                   -0.0001854611359635135f};  // −ln erfc x, in x − 2, 1 ≤ x ≤ 4
  static constexpr float ERF_ONE = 4.0f;                      // erf x rounds to 1 from here on
};
template <> struct Coefficients<double> {
  static constexpr double LOWEST = -746.0, HIGHEST = 710.0;
  static constexpr double ROUND = 6755399441055744.0;  // 1.5·2⁵²
  static constexpr double LN2_HIGH = 6.93145751953125e-1, LN2_LOW = 1.42860682030941723212e-6;
  static constexpr int BIAS = 1023, MANTISSA = 52;
  static constexpr double EXP[] = {0.500000000000001283,    0.16666666666666694,     0.0416666666665149247,
                                   0.00833333333331016809,  0.00138888889471108981,  0.000198412699113561028,
                                   0.0000248014898664080747, 2.75572214436396594e-6, 2.76313019047839744e-7,
                                   2.51162892560796404e-8};
  static constexpr double TANH[] = {
      -0.333333333333333137,   0.133333333333298763,     -0.0539682539661272747,  0.0218694884704611605,
      -0.00886323433848227093, 0.00359211424158621329,   -0.00145572742563987737, 0.000589457805483856083,
      -0.000237027822919223652, 0.0000915857114938102288, -0.000030213793597295201, 6.05377470905424537e-6};
  static constexpr double ERF[] = {0.12837916709551257,      -0.376126389031837482,    0.112837916709548842,
                                   -0.0268661706450778178,   0.0052239776248278527,    -0.000854832698139117981,
                                   0.000120553311316613743,  -0.0000149255957401056983, 1.64610079480836806e-6,
                                   -1.6350390450382705e-7,   1.46602888728827055e-8,   -1.13747978690565234e-9,
                                   5.96041201435364472e-11};
  static constexpr double ERFC[] = {
      5.36494126461663747,      4.41816080599441745,      0.923750841823804904,    0.0164651181368638328,
      -0.0035707563461563421,   0.000732399385748239091,  -0.000135309334731384592, 0.0000207064325491080942,
      -1.95219378419857121e-6,  -2.03642497621963605e-7,  1.73204854608404035e-7,  -5.77972245410419025e-8,
      1.39506565494514165e-8,   -2.53911093965897207e-9,  2.74310976862132316e-10, 4.3084374701562542e-11,
      -3.73640184433244566e-11, 1.01112991947842739e-11,  -1.03911187210923629e-12};
  static constexpr double ERF_ONE = 6.0;
};

// 2^n for whole n in the range of normal numbers.
template <class V> inline V power_of_two(bits_t<V> n) {
  using C = Coefficients<scalar_t<V>>;
  return bit_cast<V>((n + C::BIAS) << C::MANTISSA);
}

// x·2^n; n as a number and as an integer.
template <class V> inline V scale(V x, V number, bits_t<V> n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(scalar_t<V>) == 4)
    return bit_cast<V>(_mm512_maskz_scalef_ps(__mmask16(-1), bit_cast<__m512>(x), bit_cast<__m512>(number)));
  if constexpr (sizeof(V) == 64 && sizeof(scalar_t<V>) == 8)
    return bit_cast<V>(_mm512_maskz_scalef_pd(__mmask8(-1), bit_cast<__m512d>(x), bit_cast<__m512d>(number)));
#endif
  (void)number;
  const bits_t<V> half = n >> 1;  // two factors: the first product is exact, so there is one rounding, denormals too
  return x * power_of_two<V>(half) * power_of_two<V>(n - half);
}

// e^x = 2^n·e^r, n = round(x/ln 2) (Cody & Waite 1980).
template <class V> inline V vexp(V x) {
  using T = scalar_t<V>;
  using C = Coefficients<T>;
  x = x < C::LOWEST ? fill<V>(C::LOWEST) : x;
  x = x > C::HIGHEST ? fill<V>(C::HIGHEST) : x;
  const V shifted = x * T(1.44269504088896340736) + C::ROUND;
  const V n = shifted - C::ROUND;
  const bits_t<V> whole = bit_cast<bits_t<V>>(shifted) - bit_cast<bits_t<V>>(fill<V>(C::ROUND));
  const V r = (x - n * C::LN2_HIGH) - n * C::LN2_LOW;
  const V p = r * r * polynomial(r, C::EXP) + r + T(1);
  return scale(p, n, whole);
}

template <class V> inline V magnitude(V x) {
  using B = bits_t<V>;
  return bit_cast<V>(bit_cast<B>(x) & std::numeric_limits<int_of<scalar_t<V>>>::max());
}
template <class V> inline V with_sign_of(V x, V sign) {
  using B = bits_t<V>;
  return bit_cast<V>(bit_cast<B>(x) | (bit_cast<B>(sign) & std::numeric_limits<int_of<scalar_t<V>>>::min()));
}

// Near 0 a polynomial, elsewhere 1 − 2/(e^(2|x|) + 1), which does not cancel there.
template <class V> inline V vtanh(V x) {
  using T = scalar_t<V>;
  using C = Coefficients<T>;
  const V a = magnitude(x), z = x * x;
  const V near = multiply_add(x, z * polynomial(z, C::TANH), x);
  const V far = T(1) - T(2) / (vexp(a * T(2)) + T(1));
  return a < T(0.625) ? near : with_sign_of(far, x);
}

// Near 0 a polynomial, elsewhere 1 − e^(ln erfc |x|).
template <class V> inline V verf(V x) {
  using T = scalar_t<V>;
  using C = Coefficients<T>;
  const V a = magnitude(x), near = multiply_add(x, polynomial(x * x, C::ERF), x);
  const V bounded = a > C::ERF_ONE ? fill<V>(C::ERF_ONE) : a;
  const V far = T(1) - vexp(-polynomial(bounded - T(2), C::ERFC));
  return a < T(1) ? near : with_sign_of(far, x);
}

}  // namespace cllm
