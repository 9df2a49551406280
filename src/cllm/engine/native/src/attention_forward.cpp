// Attention forward: O = A·V and the logsumexp of each query; formulas in docs/derivations/attention.md.
#include "attention.hpp"

namespace cllm::attention {

template <class T> struct Forward {
  using U = unit_t<T>;
  using A = acc_t<T>;
  static constexpr int L = LANES<A>;
  Cut<U> cut;
  U *keys, *values, *queries, *weights;
  A *scores, *out, *factors, *total;
  Span* spans;
  int64_t used;

  Forward(const Attention& c, void* memory) : cut(c) {
    Arena arena(memory);
    keys = arena.take<U>(cut.units * (cut.strip + L));
    values = arena.take<U>(cut.padded_keys / STEP<U> * cut.padded_width);
    queries = arena.take<U>(cut.block * cut.units);
    scores = arena.take<A>(cut.block * cut.strip);
    weights = STEP<U> == 1 ? reinterpret_cast<U*>(scores) : arena.take<U>(cut.block * cut.strip / STEP<U>);
    out = arena.take<A>(cut.block * cut.padded_width);
    factors = c.threshold < 0 ? nullptr : arena.take<A>(cut.padded_keys);
    total = arena.take<A>(cut.block);
    spans = c.documents ? arena.take<Span>(c.keys) : nullptr;
    used = arena.used();
  }

  void head(const Attention& c, int64_t b, int64_t h) const {
    const T* q = static_cast<const T*>(c.q) + b * c.q_batch + h * c.q_head;
    const T* k = static_cast<const T*>(c.k) + b * c.kv_batch + h * c.kv_head;
    const T* v = static_cast<const T*>(c.v) + b * c.kv_batch + h * c.kv_head;
    T* o = static_cast<T*>(c.o) + b * c.o_batch + h * c.o_head;
    A* lse = static_cast<A*>(c.lse) + (b * c.heads + h) * c.queries;
    pack_columns(k, c.kv_row, c.keys, c.width, keys, cut.strip, cut.padded_keys);
    pack_rows(v, c.kv_row, c.keys, c.width, values, cut.padded_width, cut.padded_keys);
    if (spans) document_spans(c.documents + b * c.keys, c.keys, spans);
    for (int64_t start = 0; start < c.queries; start += cut.block)
      block(c, b, h, start, int(std::min(cut.block, c.queries - start)), q, o, lse);
  }

  void block(const Attention& c, int64_t b, int64_t h, int64_t start, int rows, const T* q, T* o, A* lse) const {
    const int64_t end = round_up(c.offset + start + rows, L);
    const int64_t begin = spans ? first_key(spans + c.offset + start, rows) / L * L : 0;
    pack_left(q + start * c.q_row, c.q_row, rows, c.width, queries, cut.units);
    const auto reach = [&](int m) { return round_up(c.offset + start + std::min(m + TILE_ROWS, rows), L); };
    for (int64_t j = begin; j < end; j += TILE_VECTORS * L)
      for (int m = 0; m < rows; m += TILE_ROWS)
        if (j < reach(m))
          product<U>(std::min(TILE_ROWS, rows - m), std::min<int64_t>(TILE_VECTORS * L, reach(m) - j), cut.units,
                     queries + m * cut.units, cut.units, 1, keys + j, cut.strip, scores + m * cut.strip + j, cut.strip,
                     false);
    for (int i = 0; i < rows; ++i) {
      A top;
      total[i] = row(c, b, h, i, start + i, begin, reach(i / TILE_ROWS * TILE_ROWS), &top);
      lse[start + i] = top + std::log(total[i]);
    }
    for (int m = 0; m < rows; m += TILE_ROWS)
      product<U>(std::min(TILE_ROWS, rows - m), cut.padded_width, (reach(m) - begin) / STEP<U>,
                 weights + (m * cut.strip + begin) / STEP<U>, cut.strip / STEP<U>, 1,
                 values + begin / STEP<U> * cut.padded_width, cut.padded_width, out + m * cut.padded_width,
                 cut.padded_width, false);
    for (int i = 0; i < rows; ++i)
      unpack_row(out + i * cut.padded_width, o + (start + i) * c.o_row, c.width, A(1) / total[i]);
  }

  // Scores of one query → e^(S − max), dropped; returns their sum before dropout.
  A row(const Attention& c, int64_t b, int64_t h, int i, int64_t query, int64_t begin, int64_t end, A* top) const {
    using V = vec<A>;
    A* s = scores + i * cut.strip;
    const int64_t at = c.offset + query;
    *top = finish_scores(c, b, s, begin, end, at, spans);
    if (factors) dropout_row(c, b, h, at, begin, end, factors);
    V sums = {};
    for (int64_t j = begin; j < end; j += L) {
      V p = vexp(load(s + j) - *top);
      sums += p;
      if (factors) p *= load(factors + j);
      if constexpr (STEP<U> == 2) store(reinterpret_cast<bf16*>(weights) + i * cut.strip + j, p);
      else store(s + j, rounded<T>(p));
    }
    return sum(sums);
  }
};

template <class T> void forward(const Attention& c) {
  const int64_t each = Forward<T>(c, nullptr).used, fit = c.scratch_bytes / each;
  parallel([&](int t, int count) {
    const int workers = int(std::min<int64_t>(count, fit));
    if (t >= workers) return;
    const Forward<T> work(c, static_cast<char*>(c.scratch) + t * each);
    const Range r = part(c.batch * c.heads, t, workers);
    for (int64_t i = r.begin; i < r.end; ++i) work.head(c, i / c.heads, i % c.heads);
  });
}

}  // namespace cllm::attention

#define CLLM_ATTENTION(suffix, T)                                                                               \
  CLLM_API void attention_forward_##suffix(const cllm::attention::Attention* c) { cllm::attention::forward<T>(*c); }        \
  CLLM_API void attention_forward_scratch_##suffix(const cllm::attention::Attention* c, int64_t* bytes) { /* a thread's */ \
    *bytes = cllm::attention::Forward<T>(*c, nullptr).used;                                              \
  }
CLLM_ATTENTION(f32, float)
CLLM_ATTENTION(f64, double)
CLLM_ATTENTION(bf16, cllm::bf16)
