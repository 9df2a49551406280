// The linear maps of the step: products with their finish applied tile by tile. Formulas: engine/linear.py.
#include "gelu.hpp"
#include "gemm.hpp"

namespace cllm {

// Calls f(row, column, n) for every vector of a tile, of n ≤ LANES columns.
template <class A, class F> inline void each_vector(int rows, int columns, F f) {
  constexpr int L = LANES<A>;
  if (columns == tile_vectors * L) {
    for (int r = 0; r < rows; ++r)
      for (int v = 0; v < tile_vectors; ++v) f(r, v * L, L);
  } else {
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; c += L) f(r, c, std::min(L, columns - c));
  }
}

// Asks for the lines of a tile that is about to be computed.
template <class T> inline void prefetch(const T* from, int64_t ld, int rows, int columns) {
  for (int r = 0; r < rows; ++r) {
    const char* const row = reinterpret_cast<const char*>(from + r * ld);
    for (int64_t n = 0; n < int64_t(columns * sizeof(T)); n += 64) __builtin_prefetch(row + n, 1);
    __builtin_prefetch(row + columns * sizeof(T) - 1, 1);
  }
}

// How a result is stored: into the caches, or past them when it is not looked at soon.
enum class Store { near, past };
template <Store where, class A, class O> inline void store_at(O* to, vec<A> v, int n) {
  if constexpr (where == Store::past && std::is_same_v<O, A>) {
    if (n == LANES<A>) return store_past(to, v);
  }
  store(to, v, n);
}

// out = sum [+ b] [+ residual]
template <Store where, class A, class O> struct Write {
  O* out;
  int64_t ldo;
  const A *b, *residual;
  int64_t ldr;
  void expect(int64_t i, int64_t j, int rows, int columns) const {
    if (where == Store::near) prefetch(out + i * ldo + j, ldo, rows, columns);
    if (residual && static_cast<const void*>(residual) != out) prefetch(residual + i * ldr + j, ldr, rows, columns);
  }
  void operator()(int64_t i, int64_t j, int rows, int columns, const A* tile, int ld) const {
    each_vector<A>(rows, columns, [&](int r, int c, int n) {
      vec<A> y = load(tile + r * ld + c);
      if (b) y += load(b + j + c, n);
      if (residual) y += load(residual + (i + r) * ldr + j + c, n);
      store_at<where, A>(out + (i + r) * ldo + j + c, y, n);
    });
  }
};

// out += sum, or out = sum. Where out was 0 both give the same number.
template <class A, class O> struct Add {
  O* out;
  int64_t ldo;
  void expect(int64_t i, int64_t j, int rows, int columns) const { prefetch(out + i * ldo + j, ldo, rows, columns); }
  void operator()(int64_t i, int64_t j, int rows, int columns, const A* tile, int ld) const {
    each_vector<A>(rows, columns, [&](int r, int c, int n) {
      O* const to = out + (i + r) * ldo + j + c;
      store(to, load(to, n) + load(tile + r * ld + c), n);
    });
  }
};

// pre = sum + b, post = gelu(pre), of the value that pre holds (after rounding to T).
template <Gelu form, class T> struct WriteGelu {
  using A = acc_t<T>;
  const A* b;
  T *pre, *post;
  int64_t ldp, ldo;
  void expect(int64_t i, int64_t j, int rows, int columns) const {
    prefetch(pre + i * ldp + j, ldp, rows, columns);
    prefetch(post + i * ldo + j, ldo, rows, columns);
  }
  void operator()(int64_t i, int64_t j, int rows, int columns, const A* tile, int ld) const {
    each_vector<A>(rows, columns, [&](int r, int c, int n) {
      vec<A> x = load(tile + r * ld + c);
      if (b) x += load(b + j + c, n);
      T* const to = pre + (i + r) * ldp + j + c;
      store(to, x, n);
      if constexpr (!std::is_same_v<T, A>) x = load(to, n);
      store(post + (i + r) * ldo + j + c, GeluOf<form, vec<A>>::value(x), n);
    });
  }
};

// dpre = sum ∘ gelu′(pre); dpre may be pre.
template <Gelu form, class T> struct WriteSlope {
  using A = acc_t<T>;
  const T* pre;
  T* dpre;
  int64_t ldp, ldo;
  void expect(int64_t i, int64_t j, int rows, int columns) const {
    prefetch(pre + i * ldp + j, ldp, rows, columns);
    if (pre != dpre) prefetch(dpre + i * ldo + j, ldo, rows, columns);
  }
  void operator()(int64_t i, int64_t j, int rows, int columns, const A* tile, int ld) const {
    each_vector<A>(rows, columns, [&](int r, int c, int n) {
      const vec<A> x = load(pre + (i + r) * ldp + j + c, n);
      store(dpre + (i + r) * ldo + j + c, load(tile + r * ld + c) * GeluOf<form, vec<A>>::slope(x), n);
    });
  }
};

template <class T, class O>
void forward(int64_t n, int64_t m, int64_t k, const T* x, int64_t ldx, const T* w, int64_t ldw, const acc_t<T>* b, O* out,
           int64_t ldo, const acc_t<T>* residual, int64_t ldr, char* workspace) {
  gemm<T>(n, m, k, {x, ldx, false}, {w, ldw, true}, Write<Store::near, acc_t<T>, O>{out, ldo, b, residual, ldr},
          workspace);
}

template <class T>
void gelu_forward(int64_t n, int64_t m, int64_t k, const T* x, int64_t ldx, const T* w, int64_t ldw, const acc_t<T>* b,
              T* pre, int64_t ldp, T* post, int64_t ldo, int64_t erf, char* workspace) {
  if (erf)
    gemm<T>(n, m, k, {x, ldx, false}, {w, ldw, true}, WriteGelu<Gelu::erf, T>{b, pre, post, ldp, ldo}, workspace);
  else gemm<T>(n, m, k, {x, ldx, false}, {w, ldw, true}, WriteGelu<Gelu::tanh, T>{b, pre, post, ldp, ldo}, workspace);
}

template <class T, class O>
void backward_input(int64_t n, int64_t m, int64_t k, const T* dy, int64_t ldy, const T* w, int64_t ldw, O* dx, int64_t ldx,
                char* workspace) {
  gemm<T>(n, k, m, {dy, ldy, false}, {w, ldw, false}, Write<Store::near, acc_t<T>, O>{dx, ldx, nullptr, nullptr, 0},
          workspace);
}

template <class T>
void gelu_backward_input(int64_t n, int64_t m, int64_t k, const T* dy, int64_t ldy, const T* w, int64_t ldw, const T* pre,
                   int64_t ldp, T* dpre, int64_t ldo, int64_t erf, char* workspace) {
  if (erf) gemm<T>(n, k, m, {dy, ldy, false}, {w, ldw, false}, WriteSlope<Gelu::erf, T>{pre, dpre, ldp, ldo}, workspace);
  else gemm<T>(n, k, m, {dy, ldy, false}, {w, ldw, false}, WriteSlope<Gelu::tanh, T>{pre, dpre, ldp, ldo}, workspace);
}

// How dW is stored; as in gemm.py.
enum Into : int64_t { added_to, written, written_past_caches };

template <class T, class O>
void backward_weight(int64_t n, int64_t m, int64_t k, const T* dy, int64_t ldy, const T* x, int64_t ldx, O* dw,
                 int64_t ldw, acc_t<T>* db, int64_t into, char* workspace) {
  const Matrix<T> a{dy, ldy, true}, b{x, ldx, false};
  if (into == added_to) gemm<T>(m, k, n, a, b, Add<acc_t<T>, O>{dw, ldw}, workspace, db);
  else if (into == written)
    gemm<T>(m, k, n, a, b, Write<Store::near, acc_t<T>, O>{dw, ldw, nullptr, nullptr, 0}, workspace, db);
  else gemm<T>(m, k, n, a, b, Write<Store::past, acc_t<T>, O>{dw, ldw, nullptr, nullptr, 0}, workspace, db);
}

}  // namespace cllm

// X: n×k, W: m×k, Y: n×m, each followed by its leading dimension.
#define CLLM_LINEAR(suffix, T, A)                                                                    \
  CLLM_API void gemm_workspace_##suffix(int64_t rows, int64_t columns, int64_t k, int64_t* bytes) {                  \
    *bytes = cllm::workspace_bytes<T>(rows, columns, k);                                                   \
  }                                                                                          \
  CLLM_API void linear_forward_##suffix(int64_t n, int64_t m, int64_t k, const T* x, int64_t ldx, const T* w, int64_t ldw, \
                              const A* b, T* out, int64_t ldo, const A* residual, int64_t ldr,               \
                              char* workspace) {                                                 \
    cllm::forward<T, T>(n, m, k, x, ldx, w, ldw, b, out, ldo, residual, ldr, workspace);                           \
  }                                                                                          \
  CLLM_API void linear_gelu_forward_##suffix(int64_t n, int64_t m, int64_t k, const T* x, int64_t ldx, const T* w,       \
                                   int64_t ldw, const A* b, T* pre, int64_t ldp, T* post, int64_t ldo,         \
                                   int64_t erf, char* workspace) {                                     \
    cllm::gelu_forward<T>(n, m, k, x, ldx, w, ldw, b, pre, ldp, post, ldo, erf, workspace);                        \
  }                                                                                          \
  CLLM_API void linear_backward_input_##suffix(int64_t n, int64_t m, int64_t k, const T* dy, int64_t ldy, const T* w,      \
                                     int64_t ldw, T* dx, int64_t ldx, char* workspace) {                   \
    cllm::backward_input<T, T>(n, m, k, dy, ldy, w, ldw, dx, ldx, workspace);                                    \
  }                                                                                          \
  CLLM_API void linear_gelu_backward_input_##suffix(int64_t n, int64_t m, int64_t k, const T* dy, int64_t ldy, const T* w, \
                                        int64_t ldw, const T* pre, int64_t ldp, T* dpre, int64_t ldo,        \
                                        int64_t erf, char* workspace) {                              \
    cllm::gelu_backward_input<T>(n, m, k, dy, ldy, w, ldw, pre, ldp, dpre, ldo, erf, workspace);                     \
  }                                                                                          \
  CLLM_API void linear_backward_weight_##suffix(int64_t n, int64_t m, int64_t k, const T* dy, int64_t ldy, const T* x,     \
                                    int64_t ldx, A* dw, int64_t ldw, A* db, int64_t into, char* workspace) {     \
    cllm::backward_weight<T, A>(n, m, k, dy, ldy, x, ldx, dw, ldw, db, into, workspace);                              \
  }

CLLM_LINEAR(f32, float, float)
CLLM_LINEAR(f64, double, double)
CLLM_LINEAR(bf16, cllm::bf16, float)

CLLM_API void linear_forward_bf16_f32(int64_t n, int64_t m, int64_t k, const cllm::bf16* x, int64_t ldx,
                              const cllm::bf16* w, int64_t ldw, const float* b, float* out, int64_t ldo,
                              const float* residual, int64_t ldr, char* workspace) {
  cllm::forward<cllm::bf16, float>(n, m, k, x, ldx, w, ldw, b, out, ldo, residual, ldr, workspace);
}
CLLM_API void linear_backward_input_bf16_f32(int64_t n, int64_t m, int64_t k, const cllm::bf16* dy, int64_t ldy,
                                   const cllm::bf16* w, int64_t ldw, float* dx, int64_t ldx, char* workspace) {
  cllm::backward_input<cllm::bf16, float>(n, m, k, dy, ldy, w, ldw, dx, ldx, workspace);
}
CLLM_API void linear_backward_weight_bf16_bf16(int64_t n, int64_t m, int64_t k, const cllm::bf16* dy, int64_t ldy,
                                     const cllm::bf16* x, int64_t ldx, cllm::bf16* dw, int64_t ldw, float* db,
                                     int64_t into, char* workspace) {
  cllm::backward_weight<cllm::bf16, cllm::bf16>(n, m, k, dy, ldy, x, ldx, dw, ldw, db, into, workspace);
}
