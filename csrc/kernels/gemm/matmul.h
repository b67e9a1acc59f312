// Batched matrix product. Each element's bits depend only on its row of A, its column of B, K, dtype and bias: not on
// M, N, the batch, the layout or the thread count (matmul_float.h states the sum; bf16 on AVX512_BF16 machines:
// matmul_bf16.h).
#pragma once

#include <span>

#include "base/view.h"
#include "kernels/pointwise/pointwise.h"

namespace deepseek::kernels {

// What is done to a result while a stretch of its columns is in the cache: out = op(out), op(out, other) or op(other,
// out).
struct Epilogue {
  Pointwise op;
  View other{};  // of out's sizes; without data where op takes one input
  bool other_first = false;
};

// out[..., M, N] = a[..., M, K] b[..., K, N] (+ bias) (+ out when `accumulate`). All have the same ndim (2..8) and
// dtype, but out (and the bias with it) may be float32 where a and b are 16-bit floats; the batch dimensions of a and b
// equal out's and broadcast by stride 0, their strides are arbitrary; out's rows are contiguous (any row and batch
// stride). bias: [N], or out's sizes with any strides, and not memory of out. Integers wrap; bool is an or of ands.
// The epilogue's steps follow in order, each with the bits of the pointwise kernel on the whole; out is then a matrix.
void matmul(const View& out, const View& a, const View& b, const View* bias = nullptr, bool accumulate = false,
            std::span<const Epilogue> epilogue = {});

// Which kernel serves a dtype on this machine, for `deepseek doctor`.
const char* matmul_route(DType dtype);

}  // namespace deepseek::kernels
