// Cross-entropy of rows of logits, with its gradient in place; formulas in engine/cross_entropy.py.
//
// Three passes over a row, which stays in the second-level cache: the largest logit, the exponentials and their sum,
// the gradient. dz may be narrower than z and lie in the front of z's own row: it is written behind what is read.
#include "vectormath.hpp"

namespace cllm {

template <class T>
void cross_entropy(int64_t rows, int64_t v, acc_t<T>* z, int64_t ldz, const int64_t* targets, double smoothing,
                   acc_t<T>* loss, acc_t<T>* lse, T* dz, int64_t lddz) {
  using A = acc_t<T>;
  constexpr int L = LANES<A>;
  const A s = A(smoothing), keep = A(1) - s, spread = A(smoothing / double(v));
  const A lowest = -std::numeric_limits<A>::infinity();
  parallel([=](int t, int count) {
    const Range r = part(rows, t, count);
    for (int64_t i = r.begin; i < r.end; ++i) {
      A* const row = z + i * ldz;
      const int64_t target = targets[i], at = target < 0 ? 0 : target, whole = v / L * L;
      const int rest = int(v - whole);
      const A hit = row[at];

      vec<A> tops[4] = {fill<vec<A>>(lowest), fill<vec<A>>(lowest), fill<vec<A>>(lowest), fill<vec<A>>(lowest)};
      int64_t j = 0;
      for (; j + 4 * L <= whole; j += 4 * L)
        for (int k = 0; k < 4; ++k) tops[k] = max(load(row + j + k * L), tops[k]);
      for (; j < whole; j += L) tops[0] = max(load(row + j), tops[0]);
      A top = largest(max(max(tops[0], tops[1]), max(tops[2], tops[3])));
      for (int64_t l = whole; l < v; ++l) top = row[l] > top ? row[l] : top;

      vec<A> sums[2] = {}, linear = {};
      A scalar_sum = 0, scalar_linear = 0;
      const auto exponential = [&](int64_t l, vec<A>& into) {
        const vec<A> x = load(row + l), e = vexp(x - top);
        linear += x;
        into += e;
        if (dz) store(row + l, e);
      };
      for (j = 0; j + 2 * L <= whole; j += 2 * L) {
        exponential(j, sums[0]);
        exponential(j + L, sums[1]);
      }
      for (; j < whole; j += L) exponential(j, sums[0]);
      if (rest) {
        const vec<A> x = load(row + whole, rest), e = vexp(x - top);
        for (int l = 0; l < rest; ++l) {
          scalar_linear += x[l];
          scalar_sum += e[l];
        }
        if (dz) store(row + whole, e, rest);
      }
      const A total = sum(sums[0] + sums[1]) + scalar_sum;
      const A logsum = top + std::log(total);
      lse[i] = logsum;
      const A mean = (sum(linear) + scalar_linear) / A(v);
      loss[i] = target < 0 ? A(0) : logsum - (s != A(0) ? keep * hit + s * mean : hit);
      if (!dz) continue;

      T* const out = dz + i * lddz;
      if (target < 0) {
        std::fill(out, out + v, T(A(0)));
        continue;
      }
      const A inverse = A(1) / total, own = row[at] * inverse - spread - keep;
      for (j = 0; j < whole; j += L) store(out + j, load(row + j) * inverse - spread);
      if (rest) store(out + whole, load(row + whole, rest) * inverse - spread, rest);
      out[at] = T(own);
    }
  });
}

}  // namespace cllm

#define CLLM_CROSS_ENTROPY(S, T, A)                                                                                 \
  CLLM_API void cross_entropy_##S(int64_t rows, int64_t v, A* z, int64_t ldz, const int64_t* targets, double smoothing, \
                                  A* loss, A* lse, T* dz, int64_t lddz) {                                           \
    cllm::cross_entropy<T>(rows, v, z, ldz, targets, smoothing, loss, lse, dz, lddz);                               \
  }
CLLM_CROSS_ENTROPY(f32, float, float)
CLLM_CROSS_ENTROPY(f64, double, double)
CLLM_CROSS_ENTROPY(bf16, cllm::bf16, float)
