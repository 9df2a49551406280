// Attention: what forward and backward share: the call, the packed operands and the register tile.
//
// One (batch row, head) is one piece of work, cut over the threads. Within it a block of queries at a time meets all
// keys that it may see: a strip of scores, block × keys, that stays in the second-level cache. Operands are packed
// once per head: rows of one head are a row of the joint buffer apart and would all fall into a few cache sets.
//
// Every product is one register tile: out[m][n] (+)= Σ_k a[m][k]·b[k][n], a broadcast, b and out in vectors. What a
// product may skip (forbidden keys) is skipped tile by tile. A sum over k runs in order in one accumulator, whatever
// the tile: the scores of forward and backward agree to the last bit, which makes dS of a single key exactly 0.
//
// bf16 operands go through the dot-product instruction in pairs along k where it exists; elsewhere they are widened
// to float. P and dS are rounded to bf16 either way.
#pragma once
#include "philox.hpp"
#include "vectormath.hpp"

namespace cllm::attention {

// The arguments of a call; mirrored field by field in attention.py. Strides in elements: of a batch row, a head, a
// position. q, dq: [queries, width] a head; k, v, dk, dv: [keys, width], query i standing at key offset + i.
struct Attention {
  int64_t batch, heads, queries, keys, width, offset;
  const void *q, *k, *v;
  int64_t q_batch, q_head, q_row, kv_batch, kv_head, kv_row;
  void* o;  // backward: dO, read only
  int64_t o_batch, o_head, o_row;
  void* lse;  // [batch, heads, queries], accumulator type
  void *dq, *dk, *dv;
  int64_t d_batch, d_head, d_row;
  const int64_t* documents;                            // [batch, keys], or null
  int64_t seed, step, first_row, layer, threshold;     // dropout; threshold < 0: none
  double factor;                                       // 1/(1 − p)
  const uint8_t* classes;                              // [batch, keys], or null: no bias
  const void* table;                                   // [classes, classes], accumulator type
  int64_t class_count;
  void* dtable;                                        // [classes, classes], accumulator type, added to; or null
  void* scratch;
  int64_t scratch_bytes;
};

constexpr int TILE_ROWS = 6, TILE_VECTORS = VECTOR_BYTES == 64 ? 4 : 2;  // 24 + 4 + 1 of 32, 12 + 2 + 1 of 16 registers

// What a product multiplies: a number, or two bf16 neighbours along k.
struct pair {
  bf16 first, second;
};
template <class T> struct unit { using type = T; };
#if defined(__AVX512BF16__)
template <> struct unit<bf16> { using type = pair; };
#else
template <> struct unit<bf16> { using type = float; };
#endif
template <class T> using unit_t = typename unit<T>::type;
template <class U> struct result { using type = U; };
template <> struct result<pair> { using type = float; };
template <class U> using result_t = typename result<U>::type;
template <class U> constexpr int STEP = std::is_same_v<U, pair> ? 2 : 1;  // elements of k in a unit

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

template <class U> inline vec<result_t<U>> multiply_add(const U& a, const U* b, vec<result_t<U>> sum) {
  return a * load(b) + sum;
}
#if defined(__AVX512BF16__)
inline vec<float> multiply_add(const pair& a, const pair* b, vec<float> sum) {
  const __m512i left = _mm512_set1_epi32(bit_cast<int32_t>(a)), right = _mm512_loadu_si512(b);
  return bit_cast<vec<float>>(
      _mm512_dpbf16_ps(bit_cast<__m512>(sum), bit_cast<__m512bh>(left), bit_cast<__m512bh>(right)));
}
#endif

// out[m][·] (+)= Σ_{k < n} a[m·am + k·ak]·b[k·ldb + ·] for ROWS rows and VECTORS vectors.
template <class U, int ROWS, int VECTORS>
__attribute__((noinline)) void tile(int64_t n, const U* a, int64_t am, int64_t ak, const U* b, int64_t ldb,
                                    result_t<U>* out, int64_t ldo, bool add) {
  using A = result_t<U>;
  constexpr int L = LANES<A>;
  vec<A> sum[ROWS][VECTORS];
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) sum[m][v] = add ? load(out + m * ldo + v * L) : vec<A>{};
  for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 8
    for (int m = 0; m < ROWS; ++m)
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; ++v) sum[m][v] = multiply_add(a[m * am], b + v * L, sum[m][v]);
    a += ak;
    b += ldb;
  }
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) store(out + m * ldo + v * L, sum[m][v]);
}

template <class U, int VECTORS, class... Rest> inline void tile_of(int rows, Rest... rest) {
  switch (rows) {
    case 1: return tile<U, 1, VECTORS>(rest...);
    case 2: return tile<U, 2, VECTORS>(rest...);
    case 3: return tile<U, 3, VECTORS>(rest...);
    case 4: return tile<U, 4, VECTORS>(rest...);
    case 5: return tile<U, 5, VECTORS>(rest...);
    default: return tile<U, 6, VECTORS>(rest...);
  }
}
// rows ≤ TILE_ROWS, columns a whole number of vectors, any.
template <class U>
inline void product(int rows, int64_t columns, int64_t n, const U* a, int64_t am, int64_t ak, const U* b, int64_t ldb,
                    result_t<U>* out, int64_t ldo, bool add) {
  constexpr int L = LANES<result_t<U>>;
  for (int64_t c = 0; c < columns; c += TILE_VECTORS * L) {
    const int64_t left = (columns - c) / L;
    switch (left) {
      case 1: tile_of<U, 1>(rows, n, a, am, ak, b + c, ldb, out + c, ldo, add); break;
#if defined(__AVX512F__)
      case 2: tile_of<U, 2>(rows, n, a, am, ak, b + c, ldb, out + c, ldo, add); break;
      case 3: tile_of<U, 3>(rows, n, a, am, ak, b + c, ldb, out + c, ldo, add); break;
#endif
      default: tile_of<U, TILE_VECTORS>(rows, n, a, am, ak, b + c, ldb, out + c, ldo, add);
    }
  }
}

// As a kernel of operand type T would round it.
template <class T, class V> inline V rounded(V x) {
  if constexpr (std::is_same_v<T, bf16> && STEP<unit_t<T>> == 1) {
    for (size_t i = 0; i < sizeof(V) / sizeof(float); ++i) x[i] = float(bf16(x[i]));
  }
  return x;
}

// ------------------------------------------------------------------------------------------------------ packing

template <class U, class T> inline U widened(T x) {
  if constexpr (std::is_same_v<T, bf16>) return U(float(x));
  else return U(x);
}

// Positions × width, row by row: the right operand where k runs over positions. Columns up to `ldp` and rows up to a
// whole number of vectors' worth (`padded`) are 0.
template <class U, class T>
void pack_rows(const T* x, int64_t row, int64_t n, int64_t width, U* p, int64_t ldp, int64_t padded) {
  if constexpr (std::is_same_v<U, pair>) {
#if defined(__AVX512BF16__)
    for (int64_t j = 0; j < padded; j += 2, p += ldp) {
      const T *first = x + j * row, *second = x + (j + 1) * row;
      for (int64_t c = 0; c < ldp; c += 16) {
        const int64_t left = std::max<int64_t>(0, std::min<int64_t>(16, width - c));
        const __mmask16 some = __mmask16((1u << left) - 1);
        const __m256i a = _mm256_maskz_loadu_epi16(j < n ? some : __mmask16(0), first + c);
        const __m256i b = _mm256_maskz_loadu_epi16(j + 1 < n ? some : __mmask16(0), second + c);
        const __m512i both = _mm512_or_si512(wide(a), upper(wide(b)));
        _mm512_storeu_si512(p + c, both);
      }
    }
#endif
  } else {
    for (int64_t j = 0; j < padded; ++j, p += ldp) {
      int64_t c = 0;
      if (j < n)
        for (; c < width; ++c) p[c] = widened<U>(x[j * row + c]);
      for (; c < ldp; ++c) p[c] = U(0);
    }
  }
}

// Positions × width, pairs along the width: the left operand where k runs over channels.
template <class U, class T>
void pack_left(const T* x, int64_t row, int64_t n, int64_t width, U* p, int64_t ldp) {
  if constexpr (std::is_same_v<U, pair>) {
    for (int64_t j = 0; j < n; ++j, p += ldp) {
      std::memcpy(p, x + j * row, size_t(width) * sizeof(bf16));
      if (width % 2) p[width / 2].second = bf16(0.0f);
    }
  } else {
    for (int64_t j = 0; j < n; ++j, p += ldp)
      for (int64_t c = 0; c < width; ++c) p[c] = widened<U>(x[j * row + c]);
  }
}

// Width × positions: the right operand where k runs over channels. Columns n … padded are 0.
template <class U, class T>
void pack_columns(const T* x, int64_t row, int64_t n, int64_t width, U* p, int64_t ldp, int64_t padded) {
  typedef float four __attribute__((vector_size(16)));
  const int64_t units = (width + STEP<U> - 1) / STEP<U>;
  int64_t j = 0;
  if constexpr (sizeof(U) == 4 && sizeof(T) * STEP<U> == 4)  // 4 × 4 at a time; a pair moves as one number
    for (; j + 4 <= n; j += 4)
      for (int64_t c = 0; c + 4 <= width / STEP<U>; c += 4) {
        four r[4];
        for (int i = 0; i < 4; ++i) std::memcpy(&r[i], x + (j + i) * row + c * STEP<U>, 16);
        const four a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
        const four d = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7), e = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
        const four out[4] = {__builtin_shufflevector(a, b, 0, 1, 4, 5), __builtin_shufflevector(a, b, 2, 3, 6, 7),
                             __builtin_shufflevector(d, e, 0, 1, 4, 5), __builtin_shufflevector(d, e, 2, 3, 6, 7)};
        for (int i = 0; i < 4; ++i) std::memcpy(p + (c + i) * ldp + j, &out[i], 16);
      }
  const int64_t moved = j, whole = moved ? width / STEP<U> / 4 * 4 : 0;
  for (int64_t c = 0; c < units; ++c) {
    for (int64_t i = c < whole ? moved : 0; i < n; ++i) {
      const T* at = x + i * row + c * STEP<U>;
      if constexpr (std::is_same_v<U, pair>) p[c * ldp + i] = {at[0], 2 * c + 1 < width ? at[1] : bf16(0.0f)};
      else p[c * ldp + i] = widened<U>(*at);
    }
    std::memset(static_cast<void*>(p + c * ldp + n), 0, size_t(padded - n) * sizeof(U));
  }
}

// One row of a result into a row of the caller's, times a factor.
template <class T, class A> inline void unpack_row(const A* x, T* y, int64_t width, A factor) {
  for (int64_t c = 0; c < width; c += LANES<A>) store(y + c, load(x + c) * factor, int(std::min<int64_t>(LANES<A>, width - c)));
}

// ------------------------------------------------------------------------------------------------------ scratch

// Hands out parts of a thread's scratch memory; from a null pointer it only counts.
class Arena {
 public:
  explicit Arena(void* memory) : start_(static_cast<char*>(memory)) {}
  template <class X> X* take(int64_t count) {
    X* p = start_ ? reinterpret_cast<X*>(start_ + used_) : nullptr;
    used_ += round_up(count * int64_t(sizeof(X)), 64);
    return p;
  }
  int64_t used() const { return round_up(used_ + 4096, 4096); }  // threads do not share pages

 private:
  char* start_;
  int64_t used_ = 0;
};

constexpr int64_t STRIP_BYTES = 1 << 18;  // a strip of scores aims at most at this

// Sizes derived from a call.
template <class U> struct Cut {
  static constexpr int L = LANES<result_t<U>>;
  int64_t padded_keys, padded_width, units, strip, block;
  explicit Cut(const Attention& c)
      : padded_keys(round_up(c.keys, L)),
        padded_width(round_up(c.width, L)),
        units((c.width + STEP<U> - 1) / STEP<U>),
        strip(padded_keys + (padded_keys / L % 2 ? 2 : 1) * L),  // an odd number of vectors: rows spread over the cache sets
        block(48) {
    while (block > 12 && block * strip * int64_t(sizeof(result_t<U>)) > STRIP_BYTES) block /= 2;
    block = std::min(block, round_up(c.queries, 2));
  }
};

// ------------------------------------------------------------------------------------------------------ scores

// Which keys the documents of a batch row leave to each query: those of its own document.
struct Span {
  int64_t first;   // no key before
  bool scattered;  // between here and the query there are other documents, too
};
inline void document_spans(const int64_t* documents, int64_t n, Span* span) {
  for (int64_t i = 0; i < n; ++i) {
    if (i && documents[i] == documents[i - 1]) {
      span[i] = span[i - 1];
      continue;
    }
    int64_t first = 0;
    while (documents[first] != documents[i]) ++first;
    span[i] = {first, first < i};
  }
}
inline int64_t first_key(const Span* span, int rows) {
  int64_t first = span[0].first;
  for (int i = 1; i < rows; ++i) first = std::min(first, span[i].first);
  return first;
}

// Keeps the compiler from fusing a product into the sum that follows: forward and backward must round alike.
template <class V> inline V product_rounded(V x) {
#if defined(__x86_64__)
  if constexpr (VECTOR_BYTES == 64) asm("" : "+v"(x));
  else asm("" : "+x"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#else
  asm("" : "+m"(x));
#endif
  return x;
}

// Products of one head's row → scores: times 1/√width, plus bias, −∞ where forbidden. Returns the largest.
// s: columns [begin, end), whole vectors; the query stands at position `at`, c.keys positions in all.
template <class A>
A finish_scores(const Attention& c, int64_t b, A* s, int64_t begin, int64_t end, int64_t at, const Span* span) {
  using V = vec<A>;
  using I = bits_t<V>;
  constexpr int L = LANES<A>;
  constexpr A forbidden = -std::numeric_limits<A>::infinity();
  const A scale = A(1) / std::sqrt(A(c.width));
  const int64_t* documents = span && span[at].scattered ? c.documents + b * c.keys : nullptr;
  const int64_t first = span ? span[at].first : 0;
  const uint8_t* classes = c.classes ? c.classes + b * c.keys : nullptr;
  const A* bias = classes ? static_cast<const A*>(c.table) + classes[at] * c.class_count : nullptr;
  I lane;
  for (int l = 0; l < L; ++l) lane[l] = l;
  V top = V{} + forbidden;
  for (int64_t j = begin; j < end; j += L) {
    V x = product_rounded(load(s + j) * scale);
    if (classes) {
      A added[L] = {};
      for (int l = 0; l < L && j + l <= at; ++l) added[l] = bias[classes[j + l]];
      x += load(added);
    }
    if (documents)
      for (int l = 0; l < L && j + l <= at; ++l)
        if (documents[j + l] != documents[at]) x[l] = forbidden;
    if (j < first || j + L > at + 1) {
      const I low = lane + int_of<A>(j - first), high = lane + int_of<A>(j - at);
      x = (low < 0) | (high > 0) ? V{} + forbidden : x;
    }
    store(s + j, x);
    top = max(top, x);
  }
  return largest(top);
}

// The factors m of one query's row of A: 0 or 1/(1 − p); keys begin … end, from a multiple of 4.
template <class A>
void dropout_row(const Attention& c, int64_t b, int64_t h, int64_t at, int64_t begin, int64_t end, A* m) {
  const A factor = A(c.factor);
  const uint32_t threshold = uint32_t(c.threshold);
  philox_row(uint32_t(c.seed), uint32_t(c.step), begin / 4, (end + 3) / 4, uint32_t(at | (h << 20)),
             uint32_t(c.first_row + b), uint32_t(c.layer << 8 | 1),
             [=](int64_t j, uint32_t word) { if (j < end) m[j] = word >= threshold ? factor : A(0); });
}

}  // namespace cllm::attention
