// Embedding of tokens and positions, and the scatter of its gradient; formulas in engine/embedding.py.
//
// The scatter cuts channels over the threads and takes rows in order: repeated tokens add up in the order of the rows,
// whatever the threads, without atomic operations.
#include "simd.hpp"

namespace cllm {

// positions: per row, or null: row n is at position n mod columns.  p, dp: null where positions are not added.
template <class T>
void embedding_forward(int64_t n, int64_t d, int64_t columns, const int64_t* tokens, const int64_t* positions,
                       const T* e, const acc_t<T>* p, acc_t<T>* x) {
  using A = acc_t<T>;
  parallel([=](int t, int count) {
    const Range r = part(n, t, count);
    for (int64_t i = r.begin; i < r.end; ++i) {
      const T* const token = e + tokens[i] * d;
      const A* const place = p ? p + (positions ? positions[i] : i % columns) * d : nullptr;
      for (int64_t j = 0; j < d; j += LANES<A>) {
        const int k = int(std::min<int64_t>(LANES<A>, d - j));
        const vec<A> own = load(token + j, k);
        store(x + i * d + j, place ? own + load(place + j, k) : own, k);
      }
    }
  });
}

template <class A>
void embedding_backward(int64_t n, int64_t d, int64_t columns, const int64_t* tokens, const int64_t* positions,
                        const A* dx, A* de, A* dp) {
  parallel([=](int t, int count) {
    const Range r = part(d, t, count, 64);
    for (int64_t i = 0; i < n; ++i) {
      A* const token = de + tokens[i] * d;
      A* const place = dp ? dp + (positions ? positions[i] : i % columns) * d : nullptr;
      for (int64_t j = r.begin; j < r.end; j += LANES<A>) {
        const int k = int(std::min<int64_t>(LANES<A>, r.end - j));
        const vec<A> up = load(dx + i * d + j, k);
        store(token + j, load(token + j, k) + up, k);
        if (place) store(place + j, load(place + j, k) + up, k);
      }
    }
  });
}

}  // namespace cllm

#define CLLM_EMBEDDING(S, T, A)                                                                                     \
  CLLM_API void embedding_forward_##S(int64_t n, int64_t d, int64_t columns, const int64_t* tokens,                 \
                                      const int64_t* positions, const T* e, const A* p, A* x) {                     \
    cllm::embedding_forward<T>(n, d, columns, tokens, positions, e, p, x);                                          \
  }
CLLM_EMBEDDING(f32, float, float)
CLLM_EMBEDDING(f64, double, double)
CLLM_EMBEDDING(bf16, cllm::bf16, float)

CLLM_API void embedding_backward_f32(int64_t n, int64_t d, int64_t columns, const int64_t* tokens,
                                     const int64_t* positions, const float* dx, float* de, float* dp) {
  cllm::embedding_backward<float>(n, d, columns, tokens, positions, dx, de, dp);
}
CLLM_API void embedding_backward_f64(int64_t n, int64_t d, int64_t columns, const int64_t* tokens,
                                     const int64_t* positions, const double* dx, double* de, double* dp) {
  cllm::embedding_backward<double>(n, d, columns, tokens, positions, dx, de, dp);
}
