// Packing: blocks of the operands in the order in which the register loop reads them.
//
// A block of A is a row of panels of up to tile_rows rows, of B a row of panels of tile_columns columns (the last one of
// B may be one vector wide). Words missing at the edges are 0, so that the register loop needs no tails: a pair beyond an
// odd k multiplies 0 by 0. Where neighbours in k are contiguous in memory, B is transposed in registers, a square of
// LANES words at a time; where neighbours in the other direction are, pairs are interleaved from two rows.
#pragma once
#include "gemm_kernel.hpp"

namespace cllm {

constexpr int block_panels = 8;  // panels of A packed at a time

// LANES words as a vector, whatever their type is.
template <class W> using word_vec = vec<acc_t<W>>;

// `count` elements (at most LANES words of them) with neighbours in k contiguous, as words; 0 beyond.
template <class W, class T> inline word_vec<W> load_words(const T* from, int64_t count) {
  constexpr int64_t L = LANES<acc_t<W>>, all = L * depth<W>;
  if constexpr (depth<W> * sizeof(T) == sizeof(W)) {
    word_vec<W> v{};
    if (count >= all) std::memcpy(&v, from, sizeof v);
    else std::memcpy(&v, from, size_t(count) * sizeof(T));
    return v;
  } else {
    return load(from, int(std::min(count, L)));
  }
}
template <class W> inline void store_words(W* to, word_vec<W> v) { std::memcpy(static_cast<void*>(to), &v, sizeof v); }

// LANES neighbours of row k (and of row k+1, where words are pairs), `wide` of them in memory; 0 beyond.
template <class W, class T> inline word_vec<W> load_step(const T* first, const T* second, int wide) {
  if constexpr (std::is_same_v<W, pair>) {
    const auto bits = [&](const T* p) { return bit_cast<bits_t<vec<float>>>(p ? load(p, wide) : vec<float>{}); };
    const auto low = bits(first), high = bits(second);
    return bit_cast<vec<float>>(((low >> 16) & 0xffff) | high);  // load() has put the bits into the upper half
  } else {
    (void)second;
    return load(first, wide);
  }
}

#if defined(__AVX512BF16__)
// 16 or 32 neighbours of two rows, all in memory, as one or two vectors of pairs.
alignas(64) inline constexpr uint16_t interleaved[] = {
    0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42, 11, 43, 12, 44, 13, 45,
    14, 46, 15, 47, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59,
    28, 60, 29, 61, 30, 62, 31, 63};
inline void store_pairs_16(pair* to, const bf16* first, const bf16* second) {
  const __m512i a = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(first)));
  const __m512i b = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(second)));
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, _mm512_load_si512(interleaved), b));
}
inline void store_pairs_32(pair* to, const bf16* first, const bf16* second) {
  const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, _mm512_load_si512(interleaved), b));
  _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(a, _mm512_load_si512(interleaved + 32), b));
}
#endif

// load_step, stored.
template <class W, class T> inline void store_step(W* to, const T* first, const T* second, int64_t wide) {
  constexpr int64_t L = LANES<acc_t<W>>;
#if defined(__AVX512BF16__)
  if constexpr (depth<W> == 2) {
    if (wide >= L && second) return store_pairs_16(to, first, second);
  }
#endif
  store_words<W>(to, load_step<W>(first, second, int(std::min(L, wide))));
}

// Halves of two vectors interleaved: a0 b0 a1 b1 … and the rest.
template <class V, size_t... i> inline void zip(V a, V b, V& low, V& high, std::index_sequence<i...>) {
  constexpr int n = int(sizeof...(i));
  using B = bits_t<V>;
  low = __builtin_shuffle(a, b, B{(int(i) % 2 * n + int(i) / 2)...});
  high = __builtin_shuffle(a, b, B{(int(i) % 2 * n + int(i) / 2 + n / 2)...});
}

// rows[i][j] becomes rows[j][i]: log2 n rounds of the perfect shuffle.
template <class V> inline void transpose(V* rows) {
  constexpr int n = int(sizeof(V) / sizeof(scalar_t<V>));
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
    V next[n];
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) zip(rows[i], rows[i + n / 2], next[2 * i], next[2 * i + 1], std::make_index_sequence<n>());
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) rows[i] = next[i];
  }
}

// A matrix in memory: entry (r, c) at data[r·ld + c], or at data[c·ld + r] when transposed.
template <class T> struct Matrix {
  const T* data;
  int64_t ld;
  bool transposed;
  const T* at(int64_t r, int64_t c) const { return transposed ? data + c * ld + r : data + r * ld + c; }
};

// A block of A on its way into panels of nearly equal heights: rows i0…i1, k0…k1. It is packed in slices, each some of
// the block's rows in memory, so that packing the next block can be spread over the products of this one; a slice first
// asks for the rows of the slice after it.
template <class T> struct BlockOfA {
  using W = word_t<T>;
  static constexpr int64_t L = LANES<acc_t<W>>, D = depth<W>;
  static constexpr int64_t panel_words = std::max<int64_t>(tile_rows * row_stride<W>, block_depth<W> * column_stride);
  static constexpr int64_t words = block_panels * panel_words;

  Matrix<T> a;
  int64_t i0, i1, k0, k1;
  acc_t<T>* sums;  // of A's columns in memory (transposed only): sums[i] += Σ_k A(i, k), in the order of k; or none
  W* to;
  int panels = 0, height[block_panels + 1] = {};  // panel p holds rows i0 + height[p] … i0 + height[p + 1]

  BlockOfA(Matrix<T> a, int64_t i0, int64_t i1, int64_t k0, int64_t k1, acc_t<T>* sums, W* to)
      : a(a), i0(i0), i1(i1), k0(k0), k1(k1), sums(sums), to(to), panels(int((i1 - i0 + tile_rows - 1) / tile_rows)) {
    for (int p = 0; p < panels; ++p) height[p + 1] = int(part(i1 - i0, p, panels).end);
  }

  void pack(int64_t slice, int64_t slices) const {
    const int64_t all = a.transposed ? (k1 - k0 + D - 1) / D : i1 - i0;
    const int64_t begin = all * slice / slices, end = all * (slice + 1) / slices;
    const int64_t more = slice + 1 < slices ? all * (slice + 2) / slices : end;
    if (a.transposed) {
      for (int64_t k = k0 + end * D; k < std::min(k1, k0 + more * D); ++k) expect(a.data + k * a.ld + i0, i1 - i0);
      for (int64_t k = begin; k < end; ++k) pack_column(k);
    } else {
      for (int64_t r = end; r < more; ++r) expect(a.data + (i0 + r) * a.ld + k0, k1 - k0);
      for (int p = 0; p < panels; ++p)
        for (int64_t r = std::max<int64_t>(begin, height[p]); r < std::min<int64_t>(end, height[p + 1]); ++r)
          pack_row(a.data + (i0 + r) * a.ld + k0, to + p * panel_words + (r - height[p]) * row_stride<W>);
    }
  }

 private:
  static void expect(const T* row, int64_t count) {
    for (int64_t n = 0; n < count; n += 64 / int64_t(sizeof(T))) __builtin_prefetch(row + n);
  }

  // One row, neighbours in k contiguous. Whole vectors are written: up to LANES − 1 words behind the last.
  void pack_row(const T* from, W* row) const {
    const int64_t count = k1 - k0;
    int64_t k = 0;
    for (; k + L * D <= count; k += L * D) store_words<W>(row + k / D, load_words<W>(from + k, L * D));
    if (k < count) store_words<W>(row + k / D, load_words<W>(from + k, count - k));
  }

  // One word of k of all rows, which are neighbours. Lanes beyond a panel's height are written and never looked at.
  void pack_column(int64_t word) const {
    const int64_t k = k0 + word * D, rows = i1 - i0;
    const T* const first = a.data + k * a.ld + i0;
    const T* const second = D == 2 && k + 1 < k1 ? first + a.ld : nullptr;
    for (int p = 0; p < panels; ++p) {
      W* const step = to + p * panel_words + word * column_stride;
      for (int64_t v = 0; v < column_stride && height[p] + v < rows; v += L) {
        const int64_t r = height[p] + v;
        store_step(step + v, first + r, second ? second + r : nullptr, rows - r);
      }
    }
    for (int64_t r = 0; sums && r < rows; r += L) {
      const int wide = int(std::min(L, rows - r));
      auto sum = load(sums + i0 + r, wide) + load(first + r, wide);
      if (second) sum += load(second + r, wide);
      store(sums + i0 + r, sum, wide);
    }
  }
};

// B(k, c) = from[k·ld + c], k < count, c < columns, in panels one after another; each panel holds the whole of k.
template <class W, class T> void pack_b_rows(int64_t columns, int64_t count, const T* from, int64_t ld, W* to) {
  constexpr int64_t L = LANES<acc_t<W>>, panel = tile_columns<W>, D = depth<W>;
  constexpr int64_t block = 4 * D, ahead = 2 * block;  // k at a time: a few streams of reading and of writing
  const int64_t words = (count + D - 1) / D;
  for (int64_t k0 = 0; k0 < count; k0 += block) {
    const int64_t k1 = std::min(count, k0 + block);
    for (int64_t c0 = 0; c0 < columns; c0 += panel) {
      const int64_t wide = std::min(panel, columns - c0), stride = wide <= L ? L : panel;
      W* step = to + c0 * words + k0 / D * stride;
      for (int64_t k = k0; k < k1; k += D, step += stride) {
        const T* const first = from + k * ld + c0;
        const T* const second = D == 2 && k + 1 < count ? first + ld : nullptr;
        if (k + ahead + D <= count)
          for (int64_t d = 0; d < D; ++d) __builtin_prefetch(first + (ahead + d) * ld);
#if defined(__AVX512BF16__)
        if constexpr (D == 2) {
          if (wide == panel && second) {
            store_pairs_32(step, first, second);
            continue;
          }
        }
#endif
        for (int64_t c = 0; c < stride; c += L)
          store_step(step + c, first + c, second ? second + c : nullptr, wide - c);
      }
    }
  }
}

// B(k, c) = from[c·ld + k], in the same order.
template <class W, class T> void pack_b_columns(int64_t columns, int64_t count, const T* from, int64_t ld, W* to) {
  constexpr int64_t L = LANES<acc_t<W>>, panel = tile_columns<W>, D = depth<W>;
  const int64_t words = (count + D - 1) / D;
  for (int64_t c = 0; c < columns; c += L) {
    const int64_t start = c / panel * panel, stride = columns - start <= L ? L : panel;
    const int wide = int(std::min(L, columns - c));
    for (int64_t k = 0; k < count; k += L * D) {
      word_vec<W> square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = i < wide ? load_words<W>(from + (c + i) * ld + k, count - k) : word_vec<W>{};
      transpose(square);
      W* const step = to + start * words + k / D * stride + (c - start);
      const int64_t steps = std::min(L, words - k / D);
      for (int64_t i = 0; i < steps; ++i) store_words<W>(step + i * stride, square[i]);
    }
  }
}

}  // namespace cllm
