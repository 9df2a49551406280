// The register loop of the matrix product: a tile of C kept in registers over all k.
//
// A *word* is what one lane multiplies at a time: a float, a double, or (with AVX512-BF16) a pair of bfloat16
// neighbours in k, whose two products are added to one float. A tile has `rows` × (vectors·lanes) entries: each k
// loads `vectors` vectors of B and broadcasts `rows` words of A. Sizes by level leave two or three registers free:
// 14×2 of 32 (AVX-512), 12×2 of 32 (NEON), 6×2 of 16 (AVX2, SSE2).
#pragma once
#include "simd.hpp"

namespace cllm {

struct pair { uint32_t bits; };  // two bfloat16, the lower half first in k
template <> struct accumulator<pair> { using type = float; };

#if defined(__AVX512BF16__)
template <class T> struct packed { using type = T; };
template <> struct packed<bf16> { using type = pair; };
#else
template <class T> struct packed { using type = acc_t<T>; };  // bfloat16 is widened when packed
#endif
template <class T> using word_t = typename packed<T>::type;
template <class W> constexpr int depth = std::is_same_v<W, pair> ? 2 : 1;  // k in one word

#if defined(__AVX512F__)
constexpr int tile_rows = 14;
#elif defined(__aarch64__)
constexpr int tile_rows = 12;
#else
constexpr int tile_rows = 6;
#endif
constexpr int tile_vectors = 2;
template <class W> constexpr int tile_columns = tile_vectors * LANES<acc_t<W>>;

// Packed A, by rows: word (r, k) at r·row_stride + k; by columns: at k·column_stride + r.
template <class W> constexpr int block_depth = sizeof(W) == 8 ? 512 : 1024;  // words of k in a block
template <class W> constexpr int row_stride = block_depth<W> + 64 / int(sizeof(W));
constexpr int column_stride = (tile_rows + 3) / 4 * 4;  // packing writes whole vectors: see panel_words

template <class W> inline vec<acc_t<W>> multiply_add(vec<acc_t<W>> c, W a, const W* b) {
#if defined(__AVX512BF16__)
  if constexpr (std::is_same_v<W, pair>) {
    return bit_cast<vec<float>>(_mm512_dpbf16_ps(bit_cast<__m512>(c), (__m512bh)_mm512_set1_epi32(int(a.bits)),
                                        (__m512bh)_mm512_loadu_si512(b)));
  } else
#endif
    return c + a * load(b);
}

// tile[r][·] = Σ_k A(r, k)·B(k, ·), both packed; B has vectors·lanes words a step.
template <class W, bool by_rows, int rows, int vectors>
void tile(int64_t steps, const W* __restrict a, const W* __restrict b, acc_t<W>* __restrict c) {
  using A = acc_t<W>;
  constexpr int L = LANES<A>;
  constexpr int ahead = 32;  // steps: B comes from the second-level cache or from further away
  constexpr int along_r = by_rows ? row_stride<W> : 1, along_k = by_rows ? 1 : column_stride;
  vec<A> sum[rows][vectors] = {};
#pragma GCC unroll 2
  for (int64_t k = 0; k < steps; ++k) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) __builtin_prefetch(b + ((k + ahead) * vectors + v) * L);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v)
        sum[r][v] = multiply_add(sum[r][v], a[r * along_r + k * along_k], b + (k * vectors + v) * L);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(c + (r * vectors + v) * L, sum[r][v]);
}

template <class W> using tile_function = void (*)(int64_t, const W*, const W*, acc_t<W>*);

template <class W, bool by_rows, int vectors, int... rows>
constexpr tile_function<W> choose(int wanted, std::integer_sequence<int, rows...>) {
  constexpr tile_function<W> table[] = {tile<W, by_rows, rows + 1, vectors>...};
  return table[wanted - 1];
}

// The register loop for a tile of `rows` × `vectors`, 1 ≤ rows ≤ tile_rows.
template <class W, bool by_rows> inline tile_function<W> tile_of(int rows, int vectors) {
  constexpr auto all = std::make_integer_sequence<int, tile_rows>();
  return vectors == 1 ? choose<W, by_rows, 1>(rows, all) : choose<W, by_rows, tile_vectors>(rows, all);
}

}  // namespace cllm
