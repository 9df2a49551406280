// Packing: blocks of the operands in the order in which the register loop reads them.
//
// A block of A is a row of panels of up to tile_rows rows, of B a row of panels of tile_columns columns (the last one of
// B may be one vector wide). Words missing at the edges are 0, so that the register loop needs no tails: a pair beyond an
// odd k multiplies 0 by 0.
#pragma once
#include "gemm_kernel.hpp"

namespace cllm {

// The word of elements 2k and 2k+1 (`second` false: there is no 2k+1), or of element k alone.
template <class W, class T> inline W word(const T* first, const T* second) {
  if constexpr (std::is_same_v<W, pair>) {
    return {uint32_t(first->bits) | (second ? uint32_t(second->bits) << 16 : 0u)};
  } else {
    (void)second;
    return W(*first);
  }
}

// A row of `count` elements with neighbours in k contiguous, to `words` words of which the last may be half filled.
template <class W, class T> inline void pack_row(const T* from, int64_t count, W* to) {
  if constexpr (depth<W> * sizeof(T) == sizeof(W)) {
    const int64_t whole = (count + depth<W> - 1) / depth<W>;
    if (count % depth<W>) to[whole - 1] = W{};
    std::memcpy(static_cast<void*>(to), from, size_t(count) * sizeof(T));
  } else {
    int64_t k = 0;
    for (; k + LANES<W> <= count; k += LANES<W>) store(to + k, load(from + k));
    for (; k < count; ++k) to[k] = W(from[k]);
  }
}

// A(r, k) = from[r·ld + k]: rows [0, rows) in panels cut like part(rows, ·, panels); panel p at to + p·panel_words.
template <class W, class T>
void pack_a_rows(int64_t rows, int64_t panels, int64_t count, const T* from, int64_t ld, W* to, int64_t panel_words) {
  for (int64_t p = 0; p < panels; ++p) {
    const Range own = part(rows, int(p), int(panels));
    for (int64_t r = own.begin; r < own.end; ++r)
      pack_row(from + r * ld, count, to + p * panel_words + (r - own.begin) * row_stride<W>);
  }
}

// One step k of up to tile_rows (or tile_columns) neighbours: words of from[0..count) and second[0..count).
template <class W, class T> inline void pack_step(int count, const T* first, const T* second, W* to) {
  for (int r = 0; r < count; ++r) to[r] = word<W>(first + r, second ? second + r : second);
}

// A(r, k) = from[k·ld + r]; the column sums Σ_k A(r, k) are added to sums[r] where given, in the order of k.
template <class W, class T>
void pack_a_columns(int64_t rows, int64_t panels, int64_t count, const T* from, int64_t ld, W* to, int64_t panel_words,
                    acc_t<T>* sums) {
  for (int64_t p = 0; p < panels; ++p) {
    const Range own = part(rows, int(p), int(panels));
    const int wide = int(own.end - own.begin);
    acc_t<T> sum[tile_rows] = {};
    for (int64_t k = 0; k < count; k += depth<W>) {
      const T* first = from + k * ld + own.begin;
      const T* second = depth<W> == 2 && k + 1 < count ? first + ld : nullptr;
      pack_step(wide, first, second, to + p * panel_words + k / depth<W> * column_stride);
      if (sums)
        for (int r = 0; r < wide; ++r) sum[r] += acc_t<T>(first[r]) + (second ? acc_t<T>(second[r]) : acc_t<T>(0));
    }
    if (sums)
      for (int r = 0; r < wide; ++r) sums[own.begin + r] += sum[r];
  }
}

// B(k, c) = from[k·ld + c] (by_rows) or from[c·ld + k]: `wide` ≤ tile_columns columns of one panel, zeros up to `padded`.
template <class W, bool by_rows, class T>
void pack_b(int wide, int padded, int64_t count, const T* from, int64_t ld, W* to) {
  for (int64_t k = 0; k < count; k += depth<W>, to += padded) {
    const bool two = depth<W> == 2 && k + 1 < count;
    if constexpr (by_rows) {
      pack_step(wide, from + k * ld, two ? from + (k + 1) * ld : nullptr, to);
    } else {
      for (int c = 0; c < wide; ++c) to[c] = word<W>(from + c * ld + k, two ? from + c * ld + k + 1 : nullptr);
    }
    for (int c = wide; c < padded; ++c) to[c] = W{};
  }
}

}  // namespace cllm
