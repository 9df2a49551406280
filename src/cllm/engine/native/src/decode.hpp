// Decoding: products of a weight matrix with a few vectors, as fast as the weights come from memory.
//
// Weights are float, bf16 or int8 with a scale a row; activations and sums have float32's precision, so that a narrow
// weight costs its own rounding and nothing else. float weights are used where they are, row by row. Narrow ones are
// stored in the order in which they are read: 32 rows at a time, of each of them four bytes (two or four neighbouring
// columns), then the next four. A lane is then a row, no sum ever crosses lanes, and all weights are a single stream,
// which is asked for ahead. It is read once and meets all vectors of the batch.
//
// Narrow weights are widened in their lanes. int8 with AVX512-VNNI is not: widening costs more than the product. There
// a vector is x = s·q, q whole numbers of 24 bits with s = max|x|/(2²³ − 2), kept as the three bytes of q + 2²³; its
// products with the weights are sums of whole numbers without any rounding, 64 weights by three instructions.
#pragma once
#include <utility>

#include "simd.hpp"

namespace cllm::decode {

using V = vec<float>;
constexpr int L = LANES<float>;
constexpr int ROW = 64;    // rows of bf16 and int8 weights, and vectors, are padded with zeros to a multiple of this
constexpr int BLOCK = 32;  // and there are narrow weights for a multiple of this many rows

inline int64_t padded(int64_t n) { return (n + ROW - 1) / ROW * ROW; }

// Sums of the lanes of L vectors: lane i of the result is the sum of v[i]. Halving all at once costs 3·(L − 1)
// operations instead of as many for each.
template <int WIDTH> constexpr int half_lane(int i) {  // blocks of WIDTH lanes, one a sum: lane i of their first halves
  const int half = WIDTH / 2, blocks = L / WIDTH, block = i / half;
  return block % blocks * WIDTH + i % half + (block < blocks ? 0 : L);
}
template <int WIDTH, class V, size_t... I> inline V halved(V a, V b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, half_lane<WIDTH>(I)...) +
         __builtin_shufflevector(a, b, (half_lane<WIDTH>(I) + WIDTH / 2)...);
}
template <int WIDTH, class V> inline void halve(V* v) {
  for (int j = 0; j < WIDTH / 2; ++j) v[j] = halved<WIDTH>(v[2 * j], v[2 * j + 1], std::make_index_sequence<L>{});
  if constexpr (WIDTH > 2) halve<WIDTH / 2>(v);
}
template <class V> inline V lanes_sums(V* v) {
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

inline int left(int64_t columns, int64_t c) { return int(std::max<int64_t>(0, std::min<int64_t>(L, columns - c))); }

// A vector as weights of type W want it, zeros behind its `columns`, in room for `ld` floats.
template <class W> inline void arrange(const float* from, int64_t columns, int64_t ld, float* to) {
  for (int64_t c = 0; c < ld; c += L) store(to + c, load(from + c, left(columns, c)));
}

#if defined(__AVX512VNNI__)
#define CLLM_BYTES 1
constexpr int BYTES = 3;  // a plane of `ld` high ones, then the middle ones, the low ones; s is the last float

template <> inline void arrange<int8_t>(const float* from, int64_t columns, int64_t ld, float* to) {
  constexpr float most = (1 << 23) - 2;  // two less than fits: x·factor may round up
  constexpr __mmask16 all = 0xffff;      // (GCC 12 warns about the unmasked forms)
  V top = {}, wrong = {};
  for (int64_t c = 0; c < columns; c += L) {
    const V x = load(from + c, left(columns, c));
    top = max(top, max(x, -x));
    wrong += x * 0.0f;  // NaN where x is not finite
  }
  const float high = largest(top), factor = high > 1e-30f ? most / high : 0.0f;  // below, its reciprocal is not finite
  for (int64_t c = 0; c < ld; c += L) {
    const V x = load(from + c, left(columns, c)) * factor;
    const __m512i q = _mm512_maskz_cvtps_epi32(all, bit_cast<__m512>(x));
    const __m512i u = _mm512_add_epi32(q, _mm512_set1_epi32(1 << 23));
    for (int b = 0; b < BYTES; ++b) {
      const __m128i some = _mm512_maskz_cvtepi32_epi8(all, _mm512_maskz_srli_epi32(all, u, unsigned(16 - 8 * b)));
      std::memcpy(reinterpret_cast<char*>(to) + b * ld + c, &some, sizeof some);
    }
  }
  to[ld - 1] = high / most + lanes_sum(wrong);
}
#endif

// A matrix [rows, columns], rows `ld` apart (narrow: columns with their padding); for int8 one scale a row and the sums
// of the rows' whole numbers, else null. bias may be null.
struct Matrix {
  const void* weights;
  const float *scale, *bias;
  const int32_t* sums;
  int64_t rows, columns, ld;
};

// ------------------------------------------------------------------------------------------------ float, in place

// to[r·N + i] = lanes whose sum is W_r·x_i, for ROWS rows and N vectors; SPLIT partial sums of each, where there are
// so few that one would wait for itself.
template <int ROWS, int N, int SPLIT>
__attribute__((noinline)) void dots(const float* w, int64_t ld, int64_t columns, const float* x, int64_t ldx, V* to) {
  V sum[SPLIT][ROWS][N] = {};
  int64_t c = 0;
  for (; c + SPLIT * L <= columns; c += SPLIT * L) {
#pragma GCC unroll 4
    for (int part = 0; part < SPLIT; ++part) {
      const int64_t at = c + part * L;
      V xs[N];
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) xs[i] = load(x + i * ldx + at);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        const V weights = load(w + r * ld + at);
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) sum[part][r][i] += weights * xs[i];
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
  for (; c < columns; c += L)  // what is left of a split, and the tail of a row
    for (int r = 0; r < ROWS; ++r) {
      const V weights = load(w + r * ld + c, left(columns, c));
      for (int i = 0; i < N; ++i) all[r * N + i] += weights * load(x + i * ldx + c);
    }
  std::memcpy(to, all, sizeof all);
}

template <bool ADD>
inline void multiply_rows(const Matrix& m, int64_t begin, int64_t end, const float* x, int64_t ldx, int64_t batch,
                          float* y, int64_t ldy) {
  const auto put = [&](int64_t row, int64_t i, float dot) {
    if (m.bias) dot += m.bias[row];
    float& to = y[i * ldy + row];
    to = ADD ? to + dot : dot;
  };
  const auto single = [&](const float* w, int64_t row, int64_t i) {
    V sum;
    dots<1, 1, 4>(w, m.ld, m.columns, x + i * ldx, ldx, &sum);
    put(row, i, lanes_sum(sum));
  };
  const auto several = [&](auto count, const float* w, int64_t row, int64_t i) {
    constexpr int N = decltype(count)::value, ROWS = L / N;
    V sum[L];
    dots<ROWS, N, 1>(w, m.ld, m.columns, x + i * ldx, ldx, sum);
    const V all = lanes_sums(sum);
    for (int r = 0; r < ROWS; ++r)
      for (int j = 0; j < N; ++j) put(row + r, i + j, all[r * N + j]);
  };
  for (int64_t row = begin; row < end;) {
    const float* w = static_cast<const float*>(m.weights) + row * m.ld;
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

// ------------------------------------------------------------------------------------------------ narrow, in lanes

constexpr int64_t AHEAD = 4096;  // bytes: how far ahead of their use weights are asked for

template <class W> constexpr int COLUMNS = 4 / int(sizeof(W));  // in a lane
using Lanes = bits_t<V>;

// Column j of the weights in these lanes, as floats.
template <class W> inline V column(Lanes weights, int j) {
  if constexpr (std::is_same_v<W, bf16>) return bit_cast<V>(j ? weights & int32_t(0xffff0000) : weights << 16);
  else return __builtin_convertvector(weights << (24 - 8 * j) >> 24, V);
}
inline Lanes load_lanes(const char* w) {
  __builtin_prefetch(w + AHEAD);
  return bit_cast<Lanes>(load(reinterpret_cast<const float*>(w)));
}

// out[i][v] = Σ_c W(·, c)·x_i[c] for the 2·L rows at w, in N vectors of the batch; PART partial sums take turns,
// so that none waits for itself.
template <class W, int N>
__attribute__((noinline)) void dots(const char* w, int64_t columns, const float* x, int64_t ldx, V (&out)[N][2]) {
  constexpr int PART = 4 / N, C = COLUMNS<W>, STEPS = std::max(1, PART / C);
  V sum[PART][N][2] = {};
  for (int64_t c = 0; c < columns; c += STEPS * C, w += STEPS * BLOCK * 4) {
#pragma GCC unroll 4
    for (int s = 0; s < STEPS; ++s)
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const Lanes weights = load_lanes(w + s * BLOCK * 4 + v * VECTOR_BYTES);
#pragma GCC unroll 4
        for (int j = 0; j < C; ++j)
#pragma GCC unroll 4
          for (int i = 0; i < N; ++i)
            sum[(s * C + j) % PART][i][v] += column<W>(weights, j) * x[i * ldx + c + s * C + j];
      }
  }
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i)  // unrolled, too: what is indexed by a variable would be kept in memory all along
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
#pragma GCC unroll 4
      for (int p = 1; p < PART; ++p) sum[0][i][v] += sum[p][i][v];
      out[i][v] = sum[0][i][v];
    }
}

#if defined(CLLM_BYTES)
// sum + Σ of four products in each lane. Not the intrinsic: around it GCC 12 copies every sum twice.
inline void add_products(__m512i& sum, __m512i bytes, Lanes weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights));
}

// The same from bytes; sums: Σ_c W(·, c) of each row, which q + 2²³ has 2²³ = 128·65536 times too much of.
template <int N>
__attribute__((noinline)) void dots_of_bytes(const char* w, int64_t columns, const float* x, int64_t ldx,
                                             const int32_t* sums, V (&out)[N][2]) {
  constexpr int PART = 4 / N;
  const char* const bytes = reinterpret_cast<const char*>(x);
  __m512i sum[PART][N][BYTES][2] = {};
  for (int64_t c = 0; c < columns; c += 4 * PART, w += PART * BLOCK * 4) {
#pragma GCC unroll 4
    for (int p = 0; p < PART; ++p) {
      const Lanes first = load_lanes(w + p * BLOCK * 4), second = load_lanes(w + p * BLOCK * 4 + VECTOR_BYTES);
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i)
#pragma GCC unroll 3
        for (int b = 0; b < BYTES; ++b) {
          int32_t four;
          std::memcpy(&four, bytes + i * ldx * int64_t(sizeof(float)) + b * columns + c + 4 * p, sizeof four);
          const __m512i all = _mm512_set1_epi32(four);
          add_products(sum[p][i][b][0], all, first);
          add_products(sum[p][i][b][1], all, second);
        }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      Lanes total[BYTES] = {};
#pragma GCC unroll 3
      for (int b = 0; b < BYTES; ++b)
#pragma GCC unroll 4
        for (int p = 0; p < PART; ++p) total[b] += bit_cast<Lanes>(sum[p][i][b][v]);
      total[0] -= bit_cast<Lanes>(load(reinterpret_cast<const float*>(sums + v * L))) << 7;
      const auto number = [&](int b) { return __builtin_convertvector(total[b], V); };
      const V low = multiply_add(number(1), V{} + 256.0f, number(2));
      out[i][v] = multiply_add(number(0), V{} + 65536.0f, low) * x[i * ldx + ldx - 1];
    }
}
#endif

// Rows begin … end, from a multiple of BLOCK; there are weights, scales and sums for a multiple of BLOCK rows.
template <class W, bool ADD>
inline void multiply_lanes(const Matrix& m, int64_t begin, int64_t end, const float* x, int64_t ldx, int64_t batch,
                           float* y, int64_t ldy) {
  const auto several = [&](auto count, int64_t row, int64_t i) {
    constexpr int N = decltype(count)::value;
    const int64_t block = row / BLOCK * BLOCK;
    const char* const w = static_cast<const char*>(m.weights) + block * m.ld * int64_t(sizeof(W)) + 4 * (row - block);
    V out[N][2];
#if defined(CLLM_BYTES)
    if constexpr (std::is_same_v<W, int8_t>) dots_of_bytes<N>(w, m.ld, x + i * ldx, ldx, m.sums + row, out);
    else
#endif
      dots<W, N>(w, m.ld, x + i * ldx, ldx, out);
    for (int v = 0; v < 2; ++v) {
      const int64_t at = row + v * L;
      const int some = left(end, at);
      for (int j = 0; j < N && some; ++j) {
        float* const to = y + (i + j) * ldy + at;
        V dot = out[j][v];
        if (m.scale) dot *= load(m.scale + at);
        if (m.bias) dot += load(m.bias + at, some);
        store(to, ADD ? load(to, some) + dot : dot, some);
      }
    }
  };
  for (int64_t row = begin; row < end; row += 2 * L) {
    int64_t i = 0;
    for (; i + 4 <= batch; i += 4) several(std::integral_constant<int, 4>{}, row, i);
    for (; i + 2 <= batch; i += 2) several(std::integral_constant<int, 2>{}, row, i);
    for (; i < batch; ++i) several(std::integral_constant<int, 1>{}, row, i);
  }
}

// y_i[row] (+)= W_row·x_i + bias for rows of [begin, end) and `batch` vectors; x_i as `arrange` made them. x_i and y_i
// are ldx and ldy apart.
template <class W, bool ADD>
inline void multiply(const Matrix& m, int64_t begin, int64_t end, const float* x, int64_t ldx, int64_t batch, float* y,
                     int64_t ldy) {
  if constexpr (std::is_same_v<W, float>) multiply_rows<ADD>(m, begin, end, x, ldx, batch, y, ldy);
  else multiply_lanes<W, ADD>(m, begin, end, x, ldx, batch, y, ldy);
}

}  // namespace cllm::decode
