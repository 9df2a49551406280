// One token of every sequence of a batch through the whole network, in one parallel region: model/forward.py for one
// position, with keys and values appended to the cache.
#include <atomic>
#include <thread>

#include "decode.hpp"
#include "vectormath.hpp"

namespace cllm::decode {

// Mirrored field by field in decode.py.
struct Layer {
  Matrix qkv, out, up, down;
  const float *norm1_gain, *norm1_bias, *norm2_gain, *norm2_bias;
  float *keys, *values;  // [batch, heads, context, width of a head]
};
struct Network {
  int64_t batch, layers, width, heads, ff, vocab, context, position, erf;
  const float *tokens, *positions;  // [vocab, width], [context, width] or null
  const Layer* layer;
  const float *norm_gain, *norm_bias;
  Matrix head;
  void* scratch;
  int64_t scratch_bytes;
};

// Waiting for each other several times a layer, for a few microseconds each: spinning at first, whatever OpenMP's own
// barriers do (the command line makes them sleep), then leaving the processor to others. Zeroed once, by the caller.
struct Barrier {
  std::atomic<int32_t> arrived, round;
  void wait(int threads) {
    const int32_t now = round.load(std::memory_order_acquire);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      arrived.store(0, std::memory_order_relaxed);
      round.store(int32_t(uint32_t(now) + 1), std::memory_order_release);
      return;
    }
    for (int spins = 0; round.load(std::memory_order_acquire) == now; ++spins) {
      if (spins >= SPINS) std::this_thread::yield();
#if defined(__x86_64__)
      else __builtin_ia32_pause();
#endif
    }
  }
  static constexpr int SPINS = 2000;  // some 30 µs
};
constexpr int64_t BARRIER_FLOATS = 16;  // a cache line
static_assert(sizeof(Barrier) <= BARRIER_FLOATS * sizeof(float));

// What all threads share, and what each has for itself.
struct Scratch {
  Barrier* barrier;
  float *x, *qkv, *heads, *hidden;  // [batch, padded width, 3·width, width, ff]
  float *input, *scores, *normed;   // a thread's: the vectors as the products want them, scores of a query, a norm
  int64_t ld, ld_qkv, ld_hidden;
  Scratch(const Network& n, int thread) : ld(padded(n.width)), ld_qkv(padded(3 * n.width)), ld_hidden(padded(n.ff)) {
    float* at = static_cast<float*>(n.scratch);
    barrier = reinterpret_cast<Barrier*>(at), at += BARRIER_FLOATS;
    x = at, at += n.batch * ld;
    qkv = at, at += n.batch * ld_qkv;
    heads = at, at += n.batch * ld;
    hidden = at, at += n.batch * ld_hidden;
    input = at + thread * own(n);
    scores = input + n.batch * std::max(ld, ld_hidden);
    normed = scores + padded(n.context);
  }
  static int64_t own(const Network& n) {
    return n.batch * std::max(padded(n.width), padded(n.ff)) + padded(n.context) + padded(n.width);
  }
  static int64_t bytes(const Network& n, int64_t threads) {
    const int64_t shared = n.batch * (2 * padded(n.width) + padded(3 * n.width) + padded(n.ff));
    return (BARRIER_FLOATS + shared + threads * own(n)) * int64_t(sizeof(float));
  }
};

template <class W> struct Token {
  const Network& n;
  const Scratch s;
  const int thread, threads;

  void run(const int64_t* tokens, float* logits) const {
    const Range own = part(n.width, thread, threads, L);
    for (int64_t b = 0; b < n.batch; ++b)
      for (int64_t c = own.begin; c < own.end; ++c)
        s.x[b * s.ld + c] = n.tokens[tokens[b] * n.width + c] + (n.positions ? n.positions[n.position * n.width + c] : 0);
    s.barrier->wait(threads);
    for (int64_t i = 0; i < n.layers; ++i) layer(n.layer[i]);
    normalise(n.norm_gain, n.norm_bias);
    apply<false>(n.head, s.ld, logits, n.vocab);
  }

  void layer(const Layer& l) const {
    normalise(l.norm1_gain, l.norm1_bias);
    apply<false>(l.qkv, s.ld, s.qkv, s.ld_qkv);
    s.barrier->wait(threads);
    const Range own = part(n.batch * n.heads, thread, threads);
    for (int64_t i = own.begin; i < own.end; ++i) attend(l, i / n.heads, i % n.heads, n.width / n.heads);
    s.barrier->wait(threads);
    take(s.heads, s.ld, n.width);
    apply<true>(l.out, s.ld, s.x, s.ld);
    s.barrier->wait(threads);
    normalise(l.norm2_gain, l.norm2_bias);
    apply<false>(l.up, s.ld, s.hidden, s.ld_hidden);
    const Range rows = part(l.up.rows, thread, threads, BLOCK);
    for (int64_t b = 0; b < n.batch; ++b) gelu(s.hidden + b * s.ld_hidden + rows.begin, rows.end - rows.begin);
    s.barrier->wait(threads);
    take(s.hidden, s.ld_hidden, n.ff);
    apply<true>(l.down, s.ld_hidden, s.x, s.ld);
    s.barrier->wait(threads);
  }

  // This thread's rows of y (+)= W·input + bias.
  template <bool ADD> void apply(const Matrix& m, int64_t ldx, float* y, int64_t ldy) const {
    const Range rows = part(m.rows, thread, threads, BLOCK);
    multiply<W, ADD>(m, rows.begin, rows.end, s.input, ldx, n.batch, y, ldy);
  }

  // Shared vectors into this thread's input, zeros behind them.
  void take(const float* from, int64_t ld, int64_t columns) const {
    for (int64_t b = 0; b < n.batch; ++b) arrange<W>(from + b * ld, columns, ld, s.input + b * ld);
  }

  // Layer norm of x into this thread's input (every thread for itself: cheaper than waiting).
  void normalise(const float* gain, const float* bias) const {
    for (int64_t b = 0; b < n.batch; ++b) {
      const float* x = s.x + b * s.ld;
      V sums = {}, squares = {};
      for (int64_t c = 0; c < n.width; c += L) sums += load(x + c, tail(c));
      const float mean = lanes_sum(sums) / float(n.width);
      for (int64_t c = 0; c < n.width; c += L) {
        V d = load(x + c, tail(c)) - mean;
        if (tail(c) < L) d = cut(d, tail(c));
        squares += d * d;
      }
      const float factor = 1.0f / std::sqrt(lanes_sum(squares) / float(n.width) + 1e-5f);
      for (int64_t c = 0; c < n.width; c += L) {
        const int some = tail(c);
        store(s.normed + c, (load(x + c, some) - mean) * factor * load(gain + c, some) + load(bias + c, some), some);
      }
      arrange<W>(s.normed, n.width, s.ld, s.input + b * s.ld);
    }
  }
  int tail(int64_t column) const { return int(std::min<int64_t>(L, n.width - column)); }
  static V cut(V v, int count) {
    for (int l = count; l < L; ++l) v[l] = 0;
    return v;
  }

  // Appends the new key and value of one head and attends to all.
  void attend(const Layer& l, int64_t b, int64_t h, int64_t width) const {
    const int64_t at = (b * n.heads + h) * n.context * width, count = n.position + 1;
    const float* q = s.qkv + b * s.ld_qkv + h * width;
    float *k = l.keys + at, *v = l.values + at;
    std::memcpy(k + n.position * width, q + n.width, size_t(width) * sizeof(float));
    std::memcpy(v + n.position * width, q + 2 * n.width, size_t(width) * sizeof(float));
    const float scale = 1.0f / std::sqrt(float(width));
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t j = 0; j < count; ++j) {
      V sums = {};
      int64_t c = 0;
      for (; c + L <= width; c += L) sums += load(q + c) * load(k + j * width + c);
      if (c < width) sums += load(q + c, int(width - c)) * load(k + j * width + c, int(width - c));
      s.scores[j] = lanes_sum(sums) * scale;
      top = std::max(top, s.scores[j]);
    }
    V totals = {};
    for (int64_t j = 0; j < count; j += L) {
      const int some = int(std::min<int64_t>(L, count - j));
      V p = vexp(load(s.scores + j, some) - top);
      if (some < L) p = cut(p, some);
      store(s.scores + j, p);
      totals += p;
    }
    const float factor = 1.0f / lanes_sum(totals);
    float* o = s.heads + b * s.ld + h * width;
    for (int64_t c = 0; c < width; c += 4 * L) {
      V sums[4] = {};
      const int64_t left = width - c;
      if (left >= 4 * L) {
        for (int64_t j = 0; j < count; ++j)
          for (int i = 0; i < 4; ++i) sums[i] += load(v + j * width + c + i * L) * s.scores[j];
      } else {
        for (int64_t j = 0; j < count; ++j)
          for (int i = 0; i * L < left; ++i)
            sums[i] += load(v + j * width + c + i * L, int(std::min<int64_t>(L, left - i * L))) * s.scores[j];
      }
      for (int i = 0; i < 4 && i * L < left; ++i)
        store(o + c + i * L, sums[i] * factor, int(std::min<int64_t>(L, left - i * L)));
    }
  }

  // tanh form: x·σ(2u); erf form: x·Φ(x); formulas in engine/gelu.py.
  void gelu(float* x, int64_t count) const {
    for (int64_t c = 0; c < count; c += L) {
      const int some = int(std::min<int64_t>(L, count - c));
      const V v = load(x + c, some);
      const V inner = -(v * v * 0.07135481282553454f + 1.5957691216057308f) * v;  // −2u
      const V y = n.erf ? v * (verf(v * 0.70710678118654752f) + 1.0f) * 0.5f : v / (vexp(inner) + 1.0f);
      store(x + c, y, some);
    }
  }
};

template <class W> void token(const Network& n, const int64_t* tokens, float* logits) {
  parallel([&](int t, int count) {
    Token<W>{n, Scratch(n, t), t, count}.run(tokens, logits);
  });
}

}  // namespace cllm::decode

// tokens [batch], logits [batch, vocab]; network: the position it stands at and everything read.
CLLM_API void decode_f32(const cllm::decode::Network* n, const int64_t* tokens, float* logits) {
  cllm::decode::token<float>(*n, tokens, logits);
}
CLLM_API void decode_bf16(const cllm::decode::Network* n, const int64_t* tokens, float* logits) {
  cllm::decode::token<cllm::bf16>(*n, tokens, logits);
}
CLLM_API void decode_int8(const cllm::decode::Network* n, const int64_t* tokens, float* logits) {
  cllm::decode::token<int8_t>(*n, tokens, logits);
}
// Bytes of scratch memory for this many threads.
CLLM_API void decode_scratch(const cllm::decode::Network* n, int64_t threads, int64_t* bytes) {
  *bytes = cllm::decode::Scratch::bytes(*n, threads);
}
