// Products of bytes in int32, as torch._int_mm.
#include "kernels/gemm/int8/int8_gemm.h"
#include "ops/ops.h"

namespace deepseek {

struct IntMm {
  static constexpr OpInfo info{.schema = "_int_mm(Tensor input, Tensor mat2) -> Tensor",
                               .doc = "[M, K] int8 or uint8 times [K, N] int8: [M, N] int32, exact modulo 2^32.",
                               .differentiable = false,
                               .shown = Shown::kHidden};
  bool operator==(const IntMm&) const = default;
  Meta infer(Inputs in) const {
    const Tensor &a = in[0], &b = in[1];
    DS_CHECK(a.dim() == 2, "_int_mm: Expected self to be of dimension 2 but got ", a.dim());
    DS_CHECK(b.dim() == 2, "_int_mm: Expected mat2 to be of dimension 2 but got ", b.dim());
    DS_CHECK(a.size(1) == b.size(0), "_int_mm: self.size(1) needs to match mat2.size(0) but got ", a.size(1), " and ",
             b.size(0));
    DS_CHECK(a.dtype() == DType::kInt8 || a.dtype() == DType::kUInt8,
             "_int_mm: Expected self dtype to be int8 or uint8 but got ", name_of(a.dtype()));
    DS_CHECK(b.dtype() == DType::kInt8, "_int_mm: Expected mat2 dtype to be of type int8 but got ", name_of(b.dtype()));
    return {DType::kInt32, {a.size(0), b.size(1)}};
  }
  void eval(Inputs in, Tensor& out) const { kernels::int8_gemm(out.view(), in[0].view(), in[1].view()); }
};
DS_OP(IntMm);

}  // namespace deepseek
