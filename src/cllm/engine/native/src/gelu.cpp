// GELU of a matrix, for activations that are computed again; elsewhere it is fused with the products (gemm.cpp).
#include "gelu.hpp"

namespace cllm {

template <Gelu form, class T>
void gelu_forward(int64_t n, int64_t f, const T* x, int64_t ldx, T* y, int64_t ldy) {
  using A = acc_t<T>;
  parallel([=](int t, int count) {
    const Range r = part(n, t, count);
    for (int64_t i = r.begin; i < r.end; ++i)
      for (int64_t j = 0; j < f; j += LANES<A>) {
        const int k = int(std::min<int64_t>(LANES<A>, f - j));
        store(y + i * ldy + j, GeluOf<form, vec<A>>::value(load(x + i * ldx + j, k)), k);
      }
  });
}

}  // namespace cllm

#define CLLM_GELU(S, T)                                                                                            \
  CLLM_API void gelu_forward_##S(int64_t n, int64_t f, const T* x, int64_t ldx, T* y, int64_t ldy, int64_t erf) {  \
    if (erf) cllm::gelu_forward<cllm::Gelu::erf, T>(n, f, x, ldx, y, ldy);                                         \
    else cllm::gelu_forward<cllm::Gelu::tanh, T>(n, f, x, ldx, y, ldy);                                            \
  }
CLLM_GELU(f32, float)
CLLM_GELU(f64, double)
CLLM_GELU(bf16, cllm::bf16)
