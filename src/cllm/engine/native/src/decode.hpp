// Decoding: products of a weight matrix with a few vectors, as fast as the weights come from memory.
//
// Weights are float, bf16 or int8 with a scale a row; activations and sums are float32, so that a narrow weight costs
// its own rounding and nothing else. A row is read once, in order, and meets all vectors of the batch. bf16 is widened in
// pairs: a 32-bit lane holds the weights of columns 2i (lower half) and 2i + 1, each of which becomes a float by a
// shift or a mask; the vector is stored with even and odd columns apart, a vector's width at a time.
#pragma once
#include <utility>

#include "simd.hpp"

namespace cllm::decode {

using V = vec<float>;
constexpr int L = LANES<float>;
constexpr int ROW = 64;  // rows of bf16 and int8 weights, and vectors, are padded with zeros to a multiple of this

inline int64_t padded(int64_t n) { return (n + ROW - 1) / ROW * ROW; }

// Sums of the lanes of L vectors: lane i of the result is the sum of v[i]. Halving all at once costs 3·(L − 1)
// operations instead of as many for each.
template <int WIDTH> constexpr int half_lane(int i) {  // blocks of WIDTH lanes, one a sum: lane i of their first halves
  const int half = WIDTH / 2, blocks = L / WIDTH, block = i / half;
  return block % blocks * WIDTH + i % half + (block < blocks ? 0 : L);
}
template <int WIDTH, size_t... I> inline V halved(V a, V b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, half_lane<WIDTH>(I)...) +
         __builtin_shufflevector(a, b, (half_lane<WIDTH>(I) + WIDTH / 2)...);
}
template <int WIDTH> inline void halve(V* v) {
  for (int j = 0; j < WIDTH / 2; ++j) v[j] = halved<WIDTH>(v[2 * j], v[2 * j + 1], std::make_index_sequence<L>{});
  if constexpr (WIDTH > 2) halve<WIDTH / 2>(v);
}
inline V lanes_sums(V* v) {
  halve<L>(v);
  return v[0];
}

// Sum of the lanes, by halves.
inline float lanes_sum(V v) {
#if defined(__AVX512F__)
  typedef float half __attribute__((vector_size(32)));
  const half a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                 __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  const V a = v;
#endif
  typedef float four __attribute__((vector_size(16)));
#if defined(__AVX__)
  const four b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
#else
  const four b = a;
#endif
  const four c = b + __builtin_shufflevector(b, b, 2, 3, 0, 1);
  return c[0] + c[1];
}

// How columns of a vector lie for weights of type W: natural, or even and odd apart in blocks of 2·L.
template <class W> inline int64_t place(int64_t column) { return column; }
template <> inline int64_t place<bf16>(int64_t column) {
  return column / (2 * L) * (2 * L) + column % 2 * L + column % (2 * L) / 2;
}

// STEP weights as vectors: those for columns 0 …, and for bf16 even, then odd columns.
template <class W> constexpr int VECTORS = std::is_same_v<W, bf16> ? 2 : 1;
template <class W> constexpr int STEP = VECTORS<W> * L;
inline void widen(const float* w, V (&out)[1]) { out[0] = load(w); }
inline void widen(const bf16* w, V (&out)[2]) {
  const auto both = bit_cast<bits_t<V>>(load(reinterpret_cast<const float*>(w)));
  out[0] = bit_cast<V>(both << 16);
  out[1] = bit_cast<V>(both & int32_t(0xffff0000));
}
inline void widen(const int8_t* w, V (&out)[1]) {
#if defined(__AVX512F__)
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w));
  const __m512i i = _mm512_maskz_cvtepi8_epi32(__mmask16(-1), b);
  out[0] = bit_cast<V>(_mm512_maskz_cvtepi32_ps(__mmask16(-1), i));
#elif defined(__AVX2__)
  out[0] = bit_cast<V>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w)))));
#else
  for (int l = 0; l < L; ++l) out[0][l] = float(w[l]);
#endif
}

// A matrix [rows, columns], rows `ld` apart; scale: one a row for int8, else null. bias may be null.
struct Matrix {
  const void* weights;
  const float *scale, *bias;
  int64_t rows, columns, ld;
};

// to[r·N + i] = lanes whose sum is W_r·x_i, for ROWS rows and N vectors; SPLIT partial sums of each, where there are
// so few that one would wait for itself. Columns a multiple of STEP, or any for float weights.
template <class W, int ROWS, int N, int SPLIT>
__attribute__((noinline)) void dots(const W* w, int64_t ld, int64_t columns, const float* x, int64_t ldx, V* to) {
  constexpr int P = VECTORS<W>;
  V sum[SPLIT][ROWS][N] = {};
  int64_t c = 0;
  for (; c + SPLIT * STEP<W> <= columns; c += SPLIT * STEP<W>) {
#pragma GCC unroll 4
    for (int part = 0; part < SPLIT; ++part) {
      const int64_t at = c + part * STEP<W>;
      V xs[N][P];
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i)
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p) xs[i][p] = load(x + i * ldx + at + p * L);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        V weights[P];
        widen(w + r * ld + at, weights);
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i)
#pragma GCC unroll 2
          for (int p = 0; p < P; ++p) sum[part][r][i] += weights[p] * xs[i][p];
      }
    }
  }
  V all[ROWS * N];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      if constexpr (SPLIT == 4) all[r * N + i] = (sum[0][r][i] + sum[1][r][i]) + (sum[2][r][i] + sum[3][r][i]);
      else all[r * N + i] = sum[0][r][i];
    }
  for (; c < columns; c += STEP<W>)  // what is left of a split, and the tail of a row of floats
    for (int r = 0; r < ROWS; ++r) {
      V weights[P];
      if constexpr (std::is_same_v<W, float>) weights[0] = load(w + r * ld + c, int(std::min<int64_t>(L, columns - c)));
      else widen(w + r * ld + c, weights);
      for (int i = 0; i < N; ++i)
        for (int p = 0; p < P; ++p) all[r * N + i] += weights[p] * load(x + i * ldx + c + p * L);
    }
  std::memcpy(to, all, sizeof all);
}

// y_i[row] (+)= W_row·x_i + bias for rows of [begin, end) and `batch` vectors; x_i, y_i: ldx, ldy apart.
template <class W, bool ADD>
inline void multiply(const Matrix& m, int64_t begin, int64_t end, const float* x, int64_t ldx, int64_t batch, float* y,
                     int64_t ldy) {
  const int64_t columns = std::is_same_v<W, float> ? m.columns : padded(m.columns);
  const auto put = [&](int64_t row, int64_t i, float dot) {
    if (m.scale) dot *= m.scale[row];
    if (m.bias) dot += m.bias[row];
    float& to = y[i * ldy + row];
    to = ADD ? to + dot : dot;
  };
  const auto single = [&](const W* w, int64_t row, int64_t i) {
    V sum;
    dots<W, 1, 1, 4>(w, m.ld, columns, x + i * ldx, ldx, &sum);
    put(row, i, lanes_sum(sum));
  };
  const auto several = [&](auto count, const W* w, int64_t row, int64_t i) {
    constexpr int N = decltype(count)::value, ROWS = L / N;
    V sum[L];
    dots<W, ROWS, N, 1>(w, m.ld, columns, x + i * ldx, ldx, sum);
    const V all = lanes_sums(sum);
    for (int r = 0; r < ROWS; ++r)
      for (int j = 0; j < N; ++j) put(row + r, i + j, all[r * N + j]);
  };
  for (int64_t row = begin; row < end;) {
    const W* w = static_cast<const W*>(m.weights) + row * m.ld;
    const bool block = row + L <= end;
    const int64_t rows = block ? L : 1;
    int64_t i = 0;
    if (block) {
      for (; i + 4 <= batch; i += 4)
        for (int r = 0; r < L; r += L / 4) several(std::integral_constant<int, 4>{}, w + r * m.ld, row + r, i);
      for (; i + 2 <= batch; i += 2)
        for (int r = 0; r < L; r += L / 2) several(std::integral_constant<int, 2>{}, w + r * m.ld, row + r, i);
      for (; i < batch; ++i) several(std::integral_constant<int, 1>{}, w, row, i);
    }
    for (; i < batch; ++i)
      for (int64_t r = 0; r < rows; ++r) single(w + r * m.ld, row + r, i);
    row += rows;
  }
}

}  // namespace cllm::decode
