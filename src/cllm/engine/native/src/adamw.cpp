// AdamW on one contiguous segment; formulas in engine/adamw.py and docs/derivations/adamw.md.
#include "common.hpp"

namespace cllm {

// Same order of operations as engine/adamw.py, element by element.
template <class T>
void adamw(int64_t n, T* p, const T* g, T* m, T* v, double scale, double lr, double beta1, double beta2, double eps,
           double decay, double correction1, double correction2) {
  const T b1 = T(beta1), b2 = T(beta2), c1 = T(1 - beta1), c2 = T(1 - beta2), s = T(scale);
  const T shrink = T(1 - lr * decay), rate = T(lr / correction1), root = T(std::sqrt(correction2)), e = T(eps);
  parallel([=](int t, int count) {
    const Range r = part(n, t, count, 256);
#pragma omp simd
    for (int64_t i = r.begin; i < r.end; ++i) {
      const T x = g[i] * s;
      const T mi = m[i] * b1 + c1 * x, vi = v[i] * b2 + c2 * x * x;
      m[i] = mi;
      v[i] = vi;
      p[i] = p[i] * shrink - rate * mi / (std::sqrt(vi) / root + e);
    }
  });
}

}  // namespace cllm

CLLM_API void adamw_f32(int64_t n, float* p, const float* g, float* m, float* v, double scale, double lr, double beta1,
                        double beta2, double eps, double decay, double correction1, double correction2) {
  cllm::adamw<float>(n, p, g, m, v, scale, lr, beta1, beta2, eps, decay, correction1, correction2);
}
CLLM_API void adamw_f64(int64_t n, double* p, const double* g, double* m, double* v, double scale, double lr,
                        double beta1, double beta2, double eps, double decay, double correction1, double correction2) {
  cllm::adamw<double>(n, p, g, m, v, scale, lr, beta1, beta2, eps, decay, correction1, correction2);
}
