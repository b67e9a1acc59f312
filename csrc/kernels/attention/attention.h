// Attention without the matrix of scores: softmax(q k^T * scale + mask) v, a tile of keys at a time (Dao et al. 2022).
//
// What is computed, and so every bit, is defined for each row of the queries alone. Keys come in tiles of kKeyTile at
// absolute positions, tiles in chunks of kKeyChunk. A score is one chain of fused multiply-adds over the features
// (bf16: of dot products of pairs). Within a chunk the running maximum m, sum l and accumulator follow the tiles in
// order: all are scaled when the maximum grows, l adds the weights key by key, the accumulator is one chain over the
// keys. Chunks start afresh and are merged in order. Keys that take no part change nothing. So a row has the same bits
// for any number of rows, batch mates, threads, however queries are cut, and whether chunks ran one after another or
// apart.
#pragma once

#include "base/view.h"
#include "runtime/rng.h"

namespace deepseek::kernels {

inline constexpr int64_t kKeyTile = 64, kKeyChunk = 512;

struct Attention {
  // [B, H, L, D], [B, K, S, D], [B, K, S, V]: f32, bf16 or f16 of one dtype, the last dim contiguous. K divides H;
  // query head h reads key head h / (H / K). Or, forward, k and v int8 with scales: attention_int8.h.
  View q, k, v;
  View k_scale{}, v_scale{};  // [B, K, S] floats, the last dim contiguous: what each row of int8 is multiplied by
  View mask;                  // [B, H, L, S], any strides: bool (true takes part) or numbers to add; or no data
  View sinks;                 // [H] floats, contiguous: a logit for each head that joins the denominator alone
  double scale = 1;
  double softcap = 0;       // scores become softcap * tanh(scores / softcap); 0: as they are
  bool causal = false;      // query i, at position query_start + i, sees the keys up to its own position
  int64_t window = 0;       // sees keys less than `window` positions away; 0: all
  int64_t query_start = 0;  // position of the first query
  // Weights are dropped with this probability: weight (b, h, i, j) where word ((b H + h) L + i) S + j of the draw is
  // not below (1 - p) 2^32 (random.h).
  double dropout_p = 0;
  RngState rng{};
};

// out [B, H, L, V] of q's dtype, last dim contiguous; lse [B, H, L] floats, contiguous: the logarithm of the
// denominator. A row without any key gives zeros and -inf. lse_low, as lse or without data: what rounding lse cut off;
// wanted where a mask adds numbers, beside which the sum of the weights may vanish.
void attention_forward(const Attention& a, const View& out, const View& lse, const View& lse_low = {});

// Gradients from grad_out (as out) and delta [B, H, L] = sum(grad_out * out) - grad_lse. dq, dk, dv are as q, k, v.
void attention_backward(const Attention& a, const View& grad_out, const View& lse, const View& delta, const View& dq,
                        const View& dk, const View& dv, const View& lse_low = {});

// delta = sum(grad_out * out) - grad_lse (grad_lse may have no data), and the gradient of sinks from it:
// sinks'[h] = -sum(exp(sinks[h] - lse) delta). Also for f64, with lse, delta and sinks in double.
void attention_delta(const View& grad_out, const View& out, const View& grad_lse, const View& delta);
void attention_sink_gradient(const View& sinks, const View& lse, const View& delta, const View& by_sinks);

}  // namespace deepseek::kernels
