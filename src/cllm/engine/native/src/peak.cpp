// What this processor can do at most: multiply-adds that stay in registers, and reading and writing memory. For
// `cllm bench`; nothing else calls it.
#include "simd.hpp"

namespace cllm {

// Enough independent chains to hide the latency of an instruction, few enough to stay in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int CHAINS = 24;
#else
constexpr int CHAINS = 12;
#endif

// step(chain) `steps` times on each of CHAINS values; what comes out is looked at, so that it must be computed.
template <class V, class F> inline void chains(int64_t steps, V start, F step) {
  V x[CHAINS];
  for (int i = 0; i < CHAINS; ++i) x[i] = start;
  for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; ++i) x[i] = step(x[i]);
  }
  V sum = x[0];
  for (int i = 1; i < CHAINS; ++i) sum += x[i];
  volatile char seen;
  char bytes[sizeof(V)];
  std::memcpy(bytes, &sum, sizeof sum);
  for (char b : bytes) seen = b;
  (void)seen;
}

// Every thread multiplies and adds; the number of operations (a multiply-add counts two) goes to *operations.
template <class F> void on_all_threads(int64_t steps, int64_t each, double* operations, F body) {
  parallel([&](int t, int count) {
    body(t);
    if (t == 0) *operations = double(steps) * CHAINS * double(each) * count;
  });
}

template <class T> void multiply_adds(int64_t steps, double* operations) {
  on_all_threads(steps, 2 * LANES<T>, operations, [=](int t) {
    const vec<T> a = fill<vec<T>>(T(0.5) + T(t) * T(1e-9)), b = fill<vec<T>>(T(1e-3));  // x → ax + b stays bounded
    chains(steps, b, [=](vec<T> x) { return x * a + b; });
  });
}

void read(int64_t n, const float* x, float* sums) {
  parallel([=](int t, int count) {
    const Range own = part(n, t, count, 1024);
    vec<float> sum[8] = {};
    int64_t i = own.begin;
    for (; i + 8 * LANES<float> <= own.end; i += 8 * LANES<float>)
      for (int j = 0; j < 8; ++j) sum[j] += load(x + i + j * LANES<float>);
    for (int j = 1; j < 8; ++j) sum[0] += sum[j];
    float total = cllm::sum(sum[0]);
    for (; i < own.end; ++i) total += x[i];
    sums[t] = total;
  });
}

void write(int64_t n, float* x, float value) {
  parallel([=](int t, int count) {
    const Range own = part(n, t, count, 1024);
    for (int64_t i = own.begin; i < own.end; ++i) x[i] = value;
  });
}

}  // namespace cllm

CLLM_API void register_peak_f32(int64_t steps, double* operations) { cllm::multiply_adds<float>(steps, operations); }
CLLM_API void register_peak_f64(int64_t steps, double* operations) { cllm::multiply_adds<double>(steps, operations); }

// bfloat16 pairs into float32 where the level has the instruction, else what bfloat16 operands are widened to.
CLLM_API void register_peak_bf16(int64_t steps, double* operations) {
#if defined(__AVX512BF16__)
  cllm::on_all_threads(steps, 64, operations, [=](int t) {
    const __m512i a = _mm512_set1_epi32(0x3a003a00 + t), b = _mm512_set1_epi32(0x3b003b00);
    cllm::chains(steps, cllm::vec<float>{}, [=](cllm::vec<float> x) {
      return cllm::bit_cast<cllm::vec<float>>(_mm512_dpbf16_ps(cllm::bit_cast<__m512>(x), (__m512bh)a, (__m512bh)b));
    });
  });
#else
  cllm::multiply_adds<float>(steps, operations);
#endif
}

// Bytes into 32-bit sums; 0 operations where the level has no such instruction.
CLLM_API void register_peak_i8(int64_t steps, double* operations) {
#if defined(__AVX512VNNI__)
  cllm::on_all_threads(steps, 128, operations, [=](int t) {
    const __m512i a = _mm512_set1_epi32(0x01020304 + t), b = _mm512_set1_epi32(0x04030201);
    using sums = cllm::bits_t<cllm::vec<float>>;
    cllm::chains(steps, sums{}, [=](sums x) {
      return cllm::bit_cast<sums>(_mm512_dpbusd_epi32(cllm::bit_cast<__m512i>(x), a, b));
    });
  });
#else
  (void)steps;
  *operations = 0;
#endif
}

// sums: one number a thread. n floats are read, or written.
CLLM_API void memory_read(int64_t n, const float* x, float* sums) { cllm::read(n, x, sums); }
CLLM_API void memory_write(int64_t n, float* x, double value) { cllm::write(n, x, float(value)); }
