// The matrix product C = A·B with a finishing of C in its tiles, over packed blocks (Goto & van de Geijn, "Anatomy of
// high-performance matrix multiplication", ACM TOMS 34, 2008).
//
// C is cut into a grid of rectangles, one a thread; a thread packs what it needs and shares nothing, so there is one
// parallel region and no barrier. Within a rectangle: B is packed once for as many columns as scratch allows, then for
// each block of rows and each block of k, A is packed and every tile of the block is computed. Each entry of C is one
// sum over k within a block, and the sum of its blocks in order: its bits depend on k alone, not on its place, the
// shape or the number of threads.
#pragma once
#include "gemm_pack.hpp"

namespace cllm {

constexpr int64_t packed_bytes = 16 << 20;   // of B, a thread, unless one panel needs more
constexpr int64_t least_work = 1 << 16;      // multiply-adds worth a second thread

struct Grid { int rows, columns; };

// The grid of threads for which packing costs least: A is packed once a column of the grid, B once a row.
inline Grid grid_of(int64_t rows, int64_t columns, int64_t k, int threads) {
  if (rows * columns * k < 2 * least_work) return {1, 1};
  Grid best{1, 1};
  double least = 1e300;
  for (int r = 1; r <= threads; ++r) {
    const int c = threads / r;
    const double tiles_r = double((rows + tile_rows * r - 1) / (tile_rows * r)) * tile_rows;
    const double tiles_c = double((columns + 32 * c - 1) / (32 * c)) * 32;
    const double cost = tiles_r * tiles_c + 16 * tiles_r + 64 * tiles_c;  // a thread's work, per k
    if (cost < least) least = cost, best = {r, c};
  }
  return best;
}

template <class T> struct Scratch {
  using W = word_t<T>;
  int64_t words, columns, a_bytes, b_bytes, sum_bytes;  // words of k; columns of B packed at a time; A twice

  Scratch(int64_t wide, int64_t k) {
    constexpr int64_t panel = tile_columns<W>;
    words = (k + depth<W> - 1) / depth<W>;
    columns = std::max<int64_t>(panel, packed_bytes / int64_t(sizeof(W)) / std::max<int64_t>(1, words) / panel * panel);
    columns = std::min(columns, (wide + panel - 1) / panel * panel);
    a_bytes = line(BlockOfA<T>::words * sizeof(W));
    b_bytes = line(columns * words * sizeof(W));
    sum_bytes = words > block_depth<W> ? line(block_panels * tile_rows * columns * sizeof(acc_t<W>)) : 0;
  }
  int64_t bytes() const { return 2 * a_bytes + b_bytes + sum_bytes; }
  static int64_t line(int64_t n) { return (n + 127) / 64 * 64; }  // and a line between two threads' blocks
};

// Finish::operator()(row, column, rows, columns, tile, ld) is called once for each tile of finished sums.
template <class T, class Finish>
void rectangle(Range rows, Range columns, int64_t k, Matrix<T> a, Matrix<T> b, const Finish& finish, acc_t<T>* a_sums,
               char* memory) {
  using W = word_t<T>;
  using A = acc_t<T>;
  constexpr int64_t panel = tile_columns<W>, L = LANES<A>, deep = block_depth<W> * depth<W>;
  const Scratch<T> need(columns.end - columns.begin, k);
  W* const packed_b = reinterpret_cast<W*>(memory + 2 * need.a_bytes);
  A* const sums = reinterpret_cast<A*>(memory + 2 * need.a_bytes + need.b_bytes);
  alignas(64) A out[tile_rows * panel];
  const int64_t height = rows.end - rows.begin, total = (height + tile_rows - 1) / tile_rows;  // in panels of A

  for (int64_t j0 = columns.begin; j0 < columns.end; j0 += need.columns) {
    const int64_t j1 = std::min(columns.end, j0 + need.columns), across = (j1 - j0 + panel - 1) / panel;
    if (b.transposed) pack_b_columns<W>(j1 - j0, k, b.at(0, j0), b.ld, packed_b);
    else pack_b_rows<W>(j1 - j0, k, b.at(0, j0), b.ld, packed_b);
    const auto block_at = [&](int64_t p, int64_t k0, int turn) {
      const auto row = [&](int64_t q) { return rows.begin + part(height, int(std::min(q, total)), int(total)).begin; };
      return BlockOfA<T>(a, row(p), row(p + block_panels), k0, std::min(k, k0 + deep),
                         j0 == columns.begin ? a_sums : nullptr, reinterpret_cast<W*>(memory + turn * need.a_bytes));
    };
    BlockOfA<T> now = block_at(0, 0, 0);
    now.pack(0, 1);
    for (int64_t p0 = 0, k0 = 0, turn = 1; p0 < total; turn = 1 - turn) {
      const bool first = k0 == 0, last = now.k1 == k;
      const int64_t steps = (now.k1 - k0 + depth<W> - 1) / depth<W>;
      const int64_t next_p = last ? p0 + block_panels : p0, next_k = last ? 0 : now.k1;
      const BlockOfA<T> next = block_at(next_p, next_k, int(turn));
      int64_t slice = 0;
      for (int64_t j = j0; j < j1; j += panel) {
        const int wide = int(std::min(panel, j1 - j)), vectors = wide <= L ? 1 : tile_vectors, ld = vectors * int(L);
        const W* const from = packed_b + (j - j0) * need.words + k0 / depth<W> * ld;
        for (int p = 0; p < now.panels; ++p) {
          const int64_t i = now.i0 + now.height[p];
          const int high = now.height[p + 1] - now.height[p];
          if (next.panels) next.pack(slice++, across * now.panels);
          if (last) finish.expect(i, j, high, wide);
          const auto multiply = a.transposed ? tile_of<W, false>(high, vectors) : tile_of<W, true>(high, vectors);
          multiply(steps, now.to + p * now.panel_words, from, out);
          if (!(first && last)) {  // the sum over the blocks of k so far
            A* const sum = sums + now.height[p] * need.columns + (j - j0) * high;
            for (int64_t n = 0; n < high * ld; n += L) {
              const vec<A> product = load(out + n), so_far = first ? product : load(sum + n) + product;
              store(last ? out + n : sum + n, so_far);
            }
          }
          if (last) finish(i, j, high, wide, out, ld);
        }
      }
      now = next;
      p0 = next_p, k0 = next_k;
    }
  }
  written_past();  // where Finish stored so
}

template <class T> int64_t workspace_bytes(int64_t rows, int64_t columns, int64_t k) {
  const Grid grid = grid_of(rows, columns, k, threads());
  return grid.rows * grid.columns * Scratch<T>((columns + grid.columns - 1) / grid.columns + 64, k).bytes() + 64;
}

// C = A·B, rows × columns over k; a_sums (transposed A only): += Σ_k A(·, k).
template <class T, class Finish>
void gemm(int64_t rows, int64_t columns, int64_t k, Matrix<T> a, Matrix<T> b, const Finish& finish, char* workspace,
          acc_t<T>* a_sums = nullptr) {
  if (rows <= 0 || columns <= 0) return;
  const Grid grid = grid_of(rows, columns, k, threads());
  const int64_t each = Scratch<T>((columns + grid.columns - 1) / grid.columns + 64, k).bytes();
  char* const base = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(workspace) + 63) / 64 * 64);
  const auto work = [&](int t, int count) {
    for (int own = t; own < grid.rows * grid.columns; own += count) {
      const int r = own / grid.columns, c = own % grid.columns;
      rectangle(part(rows, r, grid.rows), part(columns, c, grid.columns, 32), k, a, b, finish, c == 0 ? a_sums : nullptr,
                base + own * each);
    }
  };
  if (grid.rows * grid.columns == 1) work(0, 1);
  else parallel(work);
}

}  // namespace cllm
