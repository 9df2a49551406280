// AdamW and SGD on one contiguous segment; formulas in engine/adamw.py and docs/derivations/adamw.md.
// `shadow`, where it is not null, receives the new weights as bfloat16 in the same pass.
#include "optimiser.hpp"

namespace cllm {

template <bool SHADOW, class T>
void adamw(int64_t n, T* p, const T* g, T* m, T* v, uint16_t* shadow, const AdamW<T> c) {
  parallel([=](int t, int count) {
    const Range r = part(n, t, count, 256);
#pragma omp simd
    for (int64_t i = r.begin; i < r.end; ++i) {
      const T x = g[i] * c.scale;
      const T mi = c.first(m[i], x), vi = c.second(v[i], x);
      m[i] = mi;
      v[i] = vi;
      const T w = c.weight(p[i], mi, vi);
      p[i] = w;
      if constexpr (SHADOW) shadow[i] = shadow_of(float(w));
    }
  });
}

template <bool SHADOW, class T>
void sgd(int64_t n, T* p, const T* g, T* m, uint16_t* shadow, T scale, T rate, T momentum, T ahead, T shrink) {
  parallel([=](int t, int count) {
    const Range r = part(n, t, count, 256);
#pragma omp simd
    for (int64_t i = r.begin; i < r.end; ++i) {
      const T x = g[i] * scale;
      const T mi = m[i] * momentum + x;
      m[i] = mi;
      const T d = ahead != T(0) ? x + mi * ahead : mi;  // Nesterov looks ahead by one momentum step
      const T w = p[i] * shrink - d * rate;
      p[i] = w;
      if constexpr (SHADOW) shadow[i] = shadow_of(float(w));
    }
  });
}

}  // namespace cllm

#define CLLM_OPTIMISERS(T, S)                                                                                        \
  CLLM_API void adamw_##S(int64_t n, T* p, const T* g, T* m, T* v, uint16_t* shadow, double scale, double lr,        \
                          double beta1, double beta2, double eps, double decay, double correction1,                 \
                          double correction2) {                                                                      \
    const cllm::AdamW<T> c(scale, lr, beta1, beta2, eps, decay, correction1, correction2);                           \
    shadow ? cllm::adamw<true, T>(n, p, g, m, v, shadow, c) : cllm::adamw<false, T>(n, p, g, m, v, shadow, c);       \
  }                                                                                                                  \
  CLLM_API void sgd_##S(int64_t n, T* p, const T* g, T* m, uint16_t* shadow, double scale, double lr,                \
                        double momentum, int64_t nesterov, double decay) {                                           \
    const T s = T(scale), rate = T(lr), mu = T(momentum), ahead = nesterov ? mu : T(0), shrink = T(1 - lr * decay);  \
    shadow ? cllm::sgd<true, T>(n, p, g, m, shadow, s, rate, mu, ahead, shrink)                                      \
           : cllm::sgd<false, T>(n, p, g, m, shadow, s, rate, mu, ahead, shrink);                                    \
  }
CLLM_OPTIMISERS(float, f32)
CLLM_OPTIMISERS(double, f64)
