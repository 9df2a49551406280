// Layer norm of rows; formulas in engine/layernorm.py and docs/derivations/layernorm.md.
//
// One pass over memory: a row is read once and stays in the first-level cache for the sums and the result. dγ and dβ
// are summed over fixed blocks of rows, then over the blocks in order: the same bits for any number of threads.
#include "simd.hpp"

namespace cllm {

constexpr int64_t MOST_BLOCKS = 64, BLOCK_ROWS = 32;

inline int64_t block_rows(int64_t n) { return std::max(BLOCK_ROWS, (n + MOST_BLOCKS - 1) / MOST_BLOCKS); }

// f(j, lanes) for every vector of a row of d elements.
template <class A, class F> inline void each(int64_t d, F f) {
  constexpr int L = LANES<A>;
  int64_t j = 0;
  for (; j + L <= d; j += L) f(j, L);
  if (j < d) f(j, int(d - j));
}

// x where the lane is one of the first n, else 0: lanes behind the end must not count in a sum.
template <class V> inline V only(V x, int n) {
  using A = scalar_t<V>;
  for (int l = n; l < LANES<A>; ++l) x[l] = A(0);
  return x;
}

// Σ f(j, n) over the vectors of a row, four at a time side by side.
template <class A, class F> inline A total(int64_t d, F f) {
  constexpr int L = LANES<A>;
  vec<A> s[4] = {};
  int64_t j = 0;
  for (; j + 4 * L <= d; j += 4 * L)
    for (int k = 0; k < 4; ++k) s[k] += f(j + k * L, L);
  for (; j + L <= d; j += L) s[0] += f(j, L);
  if (j < d) s[1] += f(j, int(d - j));
  return sum((s[0] + s[1]) + (s[2] + s[3]));
}

template <class T>
void layernorm_forward(int64_t n, int64_t d, const acc_t<T>* x, const acc_t<T>* g, const acc_t<T>* b, T* y,
                       acc_t<T>* mean, acc_t<T>* rstd, double eps) {
  using A = acc_t<T>;
  parallel([=](int t, int count) {
    const Range r = part(n, t, count);
    for (int64_t i = r.begin; i < r.end; ++i) {
      const A* const row = x + i * d;
      const A mu = total<A>(d, [=](int64_t j, int k) { return load(row + j, k); }) / A(d);
      const A squares = total<A>(d, [=](int64_t j, int k) {
        const vec<A> c = only(load(row + j, k) - mu, k);
        return c * c;
      });
      const A inverse = A(1) / std::sqrt(squares / A(d) + A(eps));
      mean[i] = mu;
      rstd[i] = inverse;
      each<A>(d, [=](int64_t j, int k) {
        store(y + i * d + j, (load(row + j, k) - mu) * inverse * load(g + j, k) + load(b + j, k), k);
      });
    }
  });
}

// partial: 2·d numbers for each block of rows.
template <class T>
void layernorm_backward(int64_t n, int64_t d, const T* dy, const acc_t<T>* x, const acc_t<T>* mean, const acc_t<T>* rstd,
                        const acc_t<T>* g, acc_t<T>* dx, T* rounded, acc_t<T>* dg, acc_t<T>* db, acc_t<T>* partial) {
  using A = acc_t<T>;
  const int64_t rows = block_rows(n), blocks = (n + rows - 1) / rows;
  parallel([=](int t, int count) {
    const Range r = part(blocks, t, count);
    for (int64_t block = r.begin; block < r.end; ++block) {
      A *const pg = partial + block * 2 * d, *const pb = pg + d;
      std::fill(pg, pg + 2 * d, A(0));
      for (int64_t i = block * rows; i < std::min(n, (block + 1) * rows); ++i) {
        const T* const dyi = dy + i * d;
        const A* const xi = x + i * d;
        const A mu = mean[i], inverse = rstd[i];
        vec<A> even = {}, odd = {};  // Σ dx̂, Σ dx̂∘x̂
        each<A>(d, [&](int64_t j, int k) {
          const vec<A> up = load(dyi + j, k), normal = (load(xi + j, k) - mu) * inverse;  // (up is 0 behind the end)
          const vec<A> through = up * normal;
          store(pg + j, load(pg + j, k) + through, k);
          store(pb + j, load(pb + j, k) + up, k);
          const vec<A> gain = load(g + j, k);
          even += up * gain;
          odd += through * gain;
        });
        const A first = sum(even) / A(d), second = sum(odd) / A(d);
        A* const dxi = dx + i * d;
        each<A>(d, [=](int64_t j, int k) {
          const vec<A> normal = (load(xi + j, k) - mu) * inverse;
          const vec<A> hat = load(dyi + j, k) * load(g + j, k);
          const vec<A> result = load(dxi + j, k) + (hat - first - normal * second) * inverse;
          store(dxi + j, result, k);
          if (rounded) store(rounded + i * d + j, result, k);
        });
      }
    }
  });
  parallel([=](int t, int count) {
    const Range r = part(d, t, count, LANES<A>);
    for (int64_t block = 0; block < blocks; ++block) {
      const A *const pg = partial + block * 2 * d, *const pb = pg + d;
      for (int64_t j = r.begin; j < r.end; ++j) {
        dg[j] += pg[j];
        db[j] += pb[j];
      }
    }
  });
}

}  // namespace cllm

CLLM_API void layernorm_blocks(int64_t n, int64_t* blocks) {
  *blocks = (n + cllm::block_rows(n) - 1) / cllm::block_rows(n);
}

#define CLLM_LAYERNORM(S, T, A)                                                                                      \
  CLLM_API void layernorm_forward_##S(int64_t n, int64_t d, const A* x, const A* g, const A* b, T* y, A* mean,       \
                                      A* rstd, double eps) {                                                         \
    cllm::layernorm_forward<T>(n, d, x, g, b, y, mean, rstd, eps);                                                   \
  }                                                                                                                  \
  CLLM_API void layernorm_backward_##S(int64_t n, int64_t d, const T* dy, const A* x, const A* mean, const A* rstd,  \
                                       const A* g, A* dx, T* rounded, A* dg, A* db, A* partial) {                    \
    cllm::layernorm_backward<T>(n, d, dy, x, mean, rstd, g, dx, rounded, dg, db, partial);                           \
  }
CLLM_LAYERNORM(f32, float, float)
CLLM_LAYERNORM(f64, double, double)
CLLM_LAYERNORM(bf16, cllm::bf16, float)
