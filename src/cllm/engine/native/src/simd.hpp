// One vector type for every instruction level: GCC/Clang vector extensions of the level's width, loads, stores, tails.
//
// vec<float> has 16, 8 or 4 lanes. Arithmetic, comparison and ?: work on it as on a scalar, so a template over "scalar
// or vector" serves both; what differs is here.
#pragma once
#include "common.hpp"
#include <limits>
#include <type_traits>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace cllm {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

template <class T> struct vector_of {};
template <> struct vector_of<float> { typedef float type __attribute__((vector_size(VECTOR_BYTES))); };
template <> struct vector_of<double> { typedef double type __attribute__((vector_size(VECTOR_BYTES))); };
template <class T> using vec = typename vector_of<T>::type;
template <class T> constexpr int LANES = VECTOR_BYTES / int(sizeof(T));

// Scalar type and the integers of the same size, of a scalar or of a vector.
template <class V> struct traits { using scalar = std::decay_t<decltype(V{}[0])>; };
template <> struct traits<float> { using scalar = float; };
template <> struct traits<double> { using scalar = double; };
template <class V> using scalar_t = typename traits<V>::scalar;
template <class T> using int_of = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <class V, bool SCALAR = sizeof(V) == sizeof(scalar_t<V>)> struct bits_of { using type = int_of<V>; };
template <class V> struct bits_of<V, false> {
  typedef int_of<scalar_t<V>> type __attribute__((vector_size(sizeof(V))));
};
template <class V> using bits_t = typename bits_of<V>::type;

template <class To, class From> inline To bit_cast(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  std::memcpy(&y, &x, sizeof(To));
  return y;
}

// All lanes x.
template <class V> inline V fill(scalar_t<V> x) { return x - V{}; }

template <class T> inline vec<T> load(const T* p) {
  vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T> inline void store(T* p, vec<T> v) { std::memcpy(p, &v, sizeof v); }

// The first n ≤ LANES elements; the other lanes are 0, and what lies behind is not touched.
template <class T> inline vec<T> load(const T* p, int n) {
  if (n >= LANES<T>) return load(p);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return bit_cast<vec<T>>(_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p));
  else return bit_cast<vec<T>>(_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p));
#else
  T a[LANES<T>] = {};
  for (int i = 0; i < n; ++i) a[i] = p[i];
  return load(a);
#endif
}
// Past the caches, where p is at the start of a line: the line is not read first, and pushes nothing out. Before another
// thread looks, written_past().
template <class T> inline void store_past(T* p, vec<T> v) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>)
    if (reinterpret_cast<uintptr_t>(p) % 64 == 0) return _mm512_stream_ps(p, bit_cast<__m512>(v));
#endif
  store(p, v);
}
inline void written_past() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

template <class T> inline void store(T* p, vec<T> v, int n) {
  if (n >= LANES<T>) return store(p, v);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), bit_cast<__m512>(v));
  else _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), bit_cast<__m512d>(v));
#else
  T a[LANES<T>];
  store(a, v);
  for (int i = 0; i < n; ++i) p[i] = a[i];
#endif
}

#if defined(__AVX512F__)
// (With a mask of ones: GCC 12 warns about the unmasked forms.)
inline __m512i wide(__m256i h) { return _mm512_maskz_cvtepu16_epi32(__mmask16(-1), h); }
inline __m512i upper(__m512i x) { return _mm512_maskz_slli_epi32(__mmask16(-1), x, 16); }
#endif

// bf16 operands: widened to float exactly; narrowed by rounding to nearest even.
inline vec<float> load(const bf16* p) {
#if defined(__AVX512F__)
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return bit_cast<vec<float>>(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, h), 16));
#elif defined(__AVX2__)
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return bit_cast<vec<float>>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
#else
  vec<float> v;
  for (int i = 0; i < LANES<float>; ++i) v[i] = float(p[i]);
  return v;
#endif
}
inline vec<float> load(const bf16* p, int n) {
  if (n >= LANES<float>) return load(p);
#if defined(__AVX512F__)
  const __m256i h = _mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), p);
  return bit_cast<vec<float>>(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, h), 16));
#else
  bf16 a[LANES<float>] = {};
  std::memcpy(a, p, size_t(n) * sizeof(bf16));
  return load(a);
#endif
}
inline void store(bf16* p, vec<float> v) {
#if defined(__AVX512BF16__)
  const __m256bh h = _mm512_cvtneps_pbh(bit_cast<__m512>(v));
  std::memcpy(p, &h, sizeof h);
#else
  using bits = bits_t<vec<float>>;
  bits u = bit_cast<bits>(v);
  const bits rounded = u + 0x7fff + ((u >> 16) & 1);
  u = ((u & 0x7fffffff) > 0x7f800000 ? u | 0x400000 : rounded) >> 16;
  for (int i = 0; i < LANES<float>; ++i) p[i].bits = uint16_t(u[i]);
#endif
}
inline void store(bf16* p, vec<float> v, int n) {
  if (n >= LANES<float>) return store(p, v);
  bf16 a[LANES<float>];
  store(a, v);
  std::memcpy(p, a, size_t(n) * sizeof(bf16));
}

// Sum of the lanes by halving, and the largest lane.
template <class V> inline scalar_t<V> sum(V v) {
  using T = scalar_t<V>;
  constexpr int n = int(sizeof(V) / sizeof(T));
  T a[n];
  std::memcpy(a, &v, sizeof v);
  for (int half = n / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) a[i] += a[i + half];
  return a[0];
}
template <class V> inline scalar_t<V> largest(V v) {
  scalar_t<V> top = v[0];
  for (size_t i = 1; i < sizeof(V) / sizeof(scalar_t<V>); ++i) top = v[i] > top ? v[i] : top;
  return top;
}
template <class V> inline V max(V a, V b) { return a > b ? a : b; }

// a·b + c in one rounding where the level has the instruction, said explicitly: whether a compiler joins the two by
// itself depends on what stands around them, and a function must give the same bits wherever it is inlined.
template <class V> inline V multiply_add(V a, V b, V c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(scalar_t<V>) == 4)
    return bit_cast<V>(_mm512_fmadd_ps(bit_cast<__m512>(a), bit_cast<__m512>(b), bit_cast<__m512>(c)));
  if constexpr (sizeof(V) == 64 && sizeof(scalar_t<V>) == 8)
    return bit_cast<V>(_mm512_fmadd_pd(bit_cast<__m512d>(a), bit_cast<__m512d>(b), bit_cast<__m512d>(c)));
#endif
#if defined(__FMA__)
  if constexpr (sizeof(V) == 32 && sizeof(scalar_t<V>) == 4)
    return bit_cast<V>(_mm256_fmadd_ps(bit_cast<__m256>(a), bit_cast<__m256>(b), bit_cast<__m256>(c)));
  if constexpr (sizeof(V) == 32 && sizeof(scalar_t<V>) == 8)
    return bit_cast<V>(_mm256_fmadd_pd(bit_cast<__m256d>(a), bit_cast<__m256d>(b), bit_cast<__m256d>(c)));
#endif
  return a * b + c;
}

}  // namespace cllm
