// Attention backward: dQ, dK and dV from dO, with A recomputed from the logsumexp; docs/derivations/attention.md.
#include "attention.hpp"

namespace cllm::attention {

template <class T> struct Backward {
  using U = unit_t<T>;
  using A = acc_t<T>;
  using V = vec<A>;
  static constexpr int L = LANES<A>;
  Cut<U> cut;
  U *keys_by_channel, *values_by_channel, *keys;           // of a head
  A *dk, *dv;                                              // of a head
  U *queries, *queries_by_row, *grads, *grads_by_row;      // of a block: Q, dO
  A *scores, *dscores, *out, *factors;                     // of a block: A∘m and dS/√width, in the end
  U *ds, *ds_by_row, *weights_by_row;                      // the same as operands
  double* table;                                           // of a thread: dS by pair of classes
  Span* spans;
  int64_t used;

  Backward(const Attention& c, void* memory) : cut(c) {
    Arena arena(memory);
    const int64_t packed = cut.padded_keys / STEP<U> * cut.padded_width, columns = cut.units * cut.strip;
    const int64_t blocks = cut.block * cut.padded_width, strips = cut.block * cut.strip;
    table = c.dtable ? arena.take<double>(c.class_count * c.class_count) : nullptr;  // first: summed over threads
    keys_by_channel = arena.take<U>(columns);
    values_by_channel = arena.take<U>(columns);
    keys = arena.take<U>(packed);
    dk = arena.take<A>(cut.padded_keys * cut.padded_width);
    dv = arena.take<A>(cut.padded_keys * cut.padded_width);
    queries = arena.take<U>(cut.block * cut.units);
    grads = arena.take<U>(cut.block * cut.units);
    queries_by_row = arena.take<U>(blocks);
    grads_by_row = arena.take<U>(blocks);
    scores = arena.take<A>(strips);
    dscores = arena.take<A>(strips);
    if constexpr (STEP<U> == 1) {
      weights_by_row = reinterpret_cast<U*>(scores);
      ds = ds_by_row = reinterpret_cast<U*>(dscores);
    } else {
      weights_by_row = arena.take<U>(strips / 2);
      ds_by_row = arena.take<U>(strips / 2);
      ds = arena.take<U>(strips / 2);
    }
    out = arena.take<A>(blocks);
    factors = c.threshold < 0 ? nullptr : arena.take<A>(cut.padded_keys);
    spans = c.documents ? arena.take<Span>(c.keys) : nullptr;
    used = arena.used();
  }

  void head(const Attention& c, int64_t b, int64_t h) const {
    const int64_t q_at = b * c.q_batch + h * c.q_head, kv_at = b * c.kv_batch + h * c.kv_head;
    const T *k = static_cast<const T*>(c.k) + kv_at, *v = static_cast<const T*>(c.v) + kv_at;
    const int64_t d_at = b * c.d_batch + h * c.d_head;
    T *to_k = static_cast<T*>(c.dk) + d_at, *to_v = static_cast<T*>(c.dv) + d_at;
    pack_columns(k, c.kv_row, c.keys, c.width, keys_by_channel, cut.strip, cut.padded_keys);
    pack_columns(v, c.kv_row, c.keys, c.width, values_by_channel, cut.strip, cut.padded_keys);
    pack_rows(k, c.kv_row, c.keys, c.width, keys, cut.padded_width, cut.padded_keys);
    std::fill_n(dk, cut.padded_keys * cut.padded_width, A(0));
    std::fill_n(dv, cut.padded_keys * cut.padded_width, A(0));
    if (spans) document_spans(c.documents + b * c.keys, c.keys, spans);
    for (int64_t start = 0; start < c.queries; start += cut.block)
      block(c, b, h, start, int(std::min(cut.block, c.queries - start)), static_cast<const T*>(c.q) + q_at,
            static_cast<const T*>(c.o) + b * c.o_batch + h * c.o_head, static_cast<T*>(c.dq) + d_at);
    for (int64_t j = 0; j < c.keys; ++j) {
      unpack_row(dk + j * cut.padded_width, to_k + j * c.d_row, c.width, A(1));
      unpack_row(dv + j * cut.padded_width, to_v + j * c.d_row, c.width, A(1));
    }
  }

  void block(const Attention& c, int64_t b, int64_t h, int64_t start, int rows, const T* q, const T* grad, T* dq) const {
    const int64_t width = cut.padded_width, strip = cut.strip, end = round_up(start + rows, L);
    const int64_t begin = spans ? first_key(spans + start, rows) / L * L : 0;
    pack_left(q + start * c.q_row, c.q_row, rows, c.width, queries, cut.units);
    pack_left(grad + start * c.o_row, c.o_row, rows, c.width, grads, cut.units);
    pack_rows(q + start * c.q_row, c.q_row, rows, c.width, queries_by_row, width, round_up(rows, STEP<U>));
    pack_rows(grad + start * c.o_row, c.o_row, rows, c.width, grads_by_row, width, round_up(rows, STEP<U>));
    const auto reach = [&](int m) { return round_up(start + std::min(m + TILE_ROWS, rows), L); };
    for (int64_t j = begin; j < end; j += TILE_VECTORS * L)
      for (int m = 0; m < rows; m += TILE_ROWS)
        if (j < reach(m)) {
          const int count = std::min(TILE_ROWS, rows - m);
          const int64_t columns = std::min<int64_t>(TILE_VECTORS * L, reach(m) - j), at = m * strip + j;
          product<U>(count, columns, cut.units, queries + m * cut.units, cut.units, 1, keys_by_channel + j, strip,
                     scores + at, strip, false);
          product<U>(count, columns, cut.units, grads + m * cut.units, cut.units, 1, values_by_channel + j, strip,
                     dscores + at, strip, false);
        }
    const A* lse = static_cast<const A*>(c.lse) + (b * c.heads + h) * c.queries + start;
    for (int i = 0; i < rows; ++i) row(c, b, h, i, start + i, begin, reach(i / TILE_ROWS * TILE_ROWS), end, lse[i]);
    if constexpr (STEP<U> == 2) to_pairs(rows, begin, end);
    for (int m = 0; m < rows; m += TILE_ROWS)  // dQ = dS·K
      product<U>(std::min(TILE_ROWS, rows - m), width, (reach(m) - begin) / STEP<U>,
                 ds + (m * strip + begin) / STEP<U>, strip / STEP<U>, 1, keys + begin / STEP<U> * width, width,
                 out + m * width, width, false);
    for (int i = 0; i < rows; ++i) unpack_row(out + i * width, dq + (start + i) * c.d_row, c.width, A(1));
    const int64_t last = std::min(end, c.keys), steps = (rows + STEP<U> - 1) / STEP<U>;
    for (int64_t j = begin; j < last; j += TILE_ROWS) {  // dV += (A∘m)ᵀ·dO, dK += dSᵀ·Q: queries from key j on
      const int count = int(std::min<int64_t>(TILE_ROWS, last - j));
      const int64_t from = std::max<int64_t>(0, j - start) / STEP<U>;
      product<U>(count, width, steps - from, weights_by_row + from * strip + j, 1, strip, grads_by_row + from * width,
                 width, dv + j * width, width, true);
      product<U>(count, width, steps - from, ds_by_row + from * strip + j, 1, strip, queries_by_row + from * width,
                 width, dk + j * width, width, true);
    }
  }

  // S and dA of one query, in place → A∘m and dS/√width; 0 in columns [end, block_end).
  void row(const Attention& c, int64_t b, int64_t h, int i, int64_t at, int64_t begin, int64_t end, int64_t block_end,
           A lse) const {
    A *s = scores + i * cut.strip, *d = dscores + i * cut.strip;
    const A scale = A(1) / std::sqrt(A(c.width));
    const uint8_t* classes = c.classes ? c.classes + b * c.keys : nullptr;
    finish_scores(c, b, s, begin, end, at, spans);
    if (factors) dropout_row(c, b, h, at, begin, end, factors);
    V sums = {};
    for (int64_t j = begin; j < end; j += L) {
      const V p = vexp(load(s + j) - lse);
      V da = load(d + j);
      if (factors) {
        da *= load(factors + j);
        store(d + j, da);
      }
      store(s + j, p);
      sums += p * da;
    }
    const A mean = sum(sums);  // Σ_j A_j·dA_j
    if (table) {
      double* to = table + classes[at] * c.class_count;
      for (int64_t j = begin; j < end; ++j)
        if (j <= at) to[classes[j]] += double(s[j]) * (double(d[j]) - double(mean));
    }
    for (int64_t j = begin; j < end; j += L) {
      V p = load(s + j);
      store(d + j, rounded<T>((load(d + j) - mean) * p * scale));
      if (factors) p *= load(factors + j);
      store(s + j, rounded<T>(p));
    }
    for (int64_t j = end; j < block_end; ++j) s[j] = d[j] = A(0);
  }

  // The strips as bf16: dS by query, and dS and A∘m in pairs of queries.
  void to_pairs(int rows, int64_t begin, int64_t end) const {
#if defined(__AVX512BF16__)
    if constexpr (STEP<U> == 2) {
      if (rows % 2)
        for (int64_t j = begin; j < end; ++j) scores[rows * cut.strip + j] = dscores[rows * cut.strip + j] = 0;
      for (int i = 0; i < rows; i += 2)
        for (int64_t j = begin; j < end; j += L) {
          const int64_t at = i * cut.strip + j, below = at + cut.strip, to = i / 2 * cut.strip + j;
          bf16* narrow = reinterpret_cast<bf16*>(ds);
          store(narrow + at, load(dscores + at));
          store(narrow + below, load(dscores + below));
          interleave(load(dscores + at), load(dscores + below), ds_by_row + to);
          interleave(load(scores + at), load(scores + below), weights_by_row + to);
        }
    }
#else
    (void)rows, (void)begin, (void)end;
#endif
  }

#if defined(__AVX512BF16__)
  static void interleave(vec<float> first, vec<float> second, pair* to) {
    const __m256i a = bit_cast<__m256i>(_mm512_cvtneps_pbh(bit_cast<__m512>(first)));
    const __m256i b = bit_cast<__m256i>(_mm512_cvtneps_pbh(bit_cast<__m512>(second)));
    _mm512_storeu_si512(to, _mm512_or_si512(wide(a), upper(wide(b))));
  }
#endif
};

template <class T> void backward(const Attention& c) {
  using A = acc_t<T>;
  const int64_t each = Backward<T>(c, nullptr).used, fit = c.scratch_bytes / each;
  const int64_t pairs = c.dtable ? c.class_count * c.class_count : 0;
  int used = 1;
  parallel([&](int t, int count) {
    const int workers = int(std::min<int64_t>(count, fit));
    if (t == 0) used = workers;
    if (t >= workers) return;
    const Backward<T> work(c, static_cast<char*>(c.scratch) + t * each);
    std::fill_n(work.table, pairs, 0.0);
    const Range r = part(c.batch * c.heads, t, workers);
    for (int64_t i = r.begin; i < r.end; ++i) work.head(c, i / c.heads, i % c.heads);
  });
  for (int64_t i = 0; i < pairs; ++i) {
    double total = 0;
    for (int t = 0; t < used; ++t) total += Backward<T>(c, static_cast<char*>(c.scratch) + t * each).table[i];
    static_cast<A*>(c.dtable)[i] += A(total);
  }
}

}  // namespace cllm::attention

#define CLLM_ATTENTION(suffix, T)                                                                                \
  CLLM_API void attention_backward_##suffix(const cllm::attention::Attention* c) { cllm::attention::backward<T>(*c); }       \
  CLLM_API void attention_backward_scratch_##suffix(const cllm::attention::Attention* c, int64_t* bytes) { /* a thread's */ \
    *bytes = cllm::attention::Backward<T>(*c, nullptr).used;                                              \
  }
CLLM_ATTENTION(f32, float)
CLLM_ATTENTION(f64, double)
CLLM_ATTENTION(bf16, cllm::bf16)
