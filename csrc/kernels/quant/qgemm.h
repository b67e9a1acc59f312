// Products with quantized weights: out[m, n] = x[m, k] w[n, k]^T + bias[n].
//
// Formats whose codes are whole numbers: every row of x is quantized to int8 with one scale (quantize_activations), and
//   out = fma(sum_b, x_scale, bias)   with   sum = fma(scale_b, float(dot_b), sum), blocks b in order of k from sum =
//   0,
// dot_b the exact integer sum over the block of value * x, a value being what the scale 1 decodes to. A block of a
// whole row is cut into blocks of kWholeRowBlock values with the same scale. So every kernel gives the same bits, and a
// row's do not depend on M.
//
// Others (fp8): weights are dequantized to the input's type in tiles (bfloat16 input: rounded to bfloat16 once) and
// multiplied as any matrix is (kernels/gemm/matmul.h).
#pragma once

#include <optional>

#include "base/dtype.h"
#include "kernels/pointwise/activations.h"
#include "kernels/quant/quant_format.h"

namespace deepseek::kernels {

inline constexpr int64_t kWholeRowBlock = 1024;  // exact as a float: 1024 * 128 * 127 < 2^24

// The weights as the kernels read them: panels of 16 rows of w, each one contiguous stream
//   {16 scales (float16 when all fit, else float32), 16 zero points (formats that have them), codes} for each block,
// codes in groups of 4 k for each of the 16 rows (PackedCodes). Made of one buffer that begins with this header. Of a
// stack of matrices the panels follow one another, those of matrix e from e * panels() on.
struct PackedQuant {
  const QuantFormat* format;
  bool half_scales;
  int64_t n, k, block;  // block > 0

  static constexpr int64_t kColumns = 16, kStep = 32;  // K is padded to whole steps
  static constexpr int64_t kHeaderBytes = 64;

  int64_t panels() const { return (n + kColumns - 1) / kColumns; }
  int64_t steps() const { return (k + kStep - 1) / kStep; }
  int64_t block_steps() const { return block / kStep; }
  int64_t blocks() const { return (steps() + block_steps() - 1) / block_steps(); }
  int64_t step_bytes() const { return format->packed->words * kColumns * 4; }
  int64_t side_bytes() const {  // of scales and zero points of a block
    return (half_scales ? 2 : 4) * kColumns + (format->has_zeros ? kColumns : 0);
  }
  int64_t panel_bytes() const { return blocks() * side_bytes() + steps() * step_bytes(); }
  int64_t block_bytes() const { return side_bytes() + block_steps() * step_bytes(); }
  const uint8_t* panel(int64_t p) const {
    return reinterpret_cast<const uint8_t*>(this) + kHeaderBytes + p * panel_bytes();
  }
};
static_assert(sizeof(PackedQuant) <= PackedQuant::kHeaderBytes);

// What packing q, or a stack of `count` of which it is the first, will give; bytes of the buffer for it. For
// formats that have `packed` codes.
PackedQuant packed_form(const QuantMatrix& q, int64_t count = 1);
size_t packed_bytes(const PackedQuant& form, int64_t count = 1);
// Fills `to` (64-byte aligned, packed_bytes long).
void qgemm_pack(const QuantMatrix& q, const PackedQuant& form, void* to, int64_t count = 1);
// The inverse: q's codes, scales and zeros from the packed form.
void qgemm_unpack(const PackedQuant& p, const QuantMatrix& q);

// x: m rows of k values (float32 or bfloat16), out of the same type; bias may be null. Rows are contiguous. The result
// may go on to an activation and have `residual` (as out; may be null) added: out = activation(x w^T + bias) +
// residual, each of the three rounded to the type, so that fusing them changes no bits.
struct QGemm {
  DType dtype;
  int64_t m;
  const void* x;
  int64_t x_row;
  const float* bias;
  void* out;
  int64_t out_row;
  std::optional<Pointwise> activation = {};  // of kActivations
  const void* residual = nullptr;
  int64_t residual_row = 0;
};
// Over threads; VNNI or AVX2.
void qgemm(const QGemm& g, const PackedQuant& w);
// The definition above in plain loops: serial, from the unpacked weights; no activation, no residual.
void qgemm_plain(const QGemm& g, const QuantMatrix& w);
// For formats without packed codes; over threads.
void qgemm_dequantized(const QGemm& g, const QuantMatrix& w);

}  // namespace deepseek::kernels
