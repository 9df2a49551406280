// exp, tanh and erf of arrays: what the tests measure the header with.
#include "vectormath.hpp"

namespace cllm {

template <class T, class F> void map(int64_t n, const T* x, T* y, F f) {
  for (int64_t i = 0; i < n; i += LANES<T>) {
    const int count = int(std::min<int64_t>(LANES<T>, n - i));
    store(y + i, f(load(x + i, count)), count);
  }
}

}  // namespace cllm

#define CLLM_FUNCTION(name, suffix, T)                                   \
  CLLM_API void name##_##suffix(int64_t n, const T* x, T* y) {           \
    cllm::map(n, x, y, [](cllm::vec<T> v) { return cllm::v##name(v); }); \
  }
CLLM_FUNCTION(exp, f32, float)
CLLM_FUNCTION(exp, f64, double)
CLLM_FUNCTION(tanh, f32, float)
CLLM_FUNCTION(tanh, f64, double)
CLLM_FUNCTION(erf, f32, float)
CLLM_FUNCTION(erf, f64, double)
