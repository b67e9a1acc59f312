// Dims swapped, reversed and turned.
#include "ops/composite.h"

namespace deepseek {

DS_BODY(Swapaxes, "swapaxes(Tensor input, int axis0, int axis1) -> Tensor",
        "Two dims swapped (a view), as `transpose`.", false, kBoth, int64_t axis0;
        int64_t axis1;) {
  return transpose(in[0], axis0, axis1);
}
DS_BODY(Swapdims, "swapdims(Tensor input, int dim0, int dim1) -> Tensor", "Two dims swapped (a view), as `transpose`.",
        false, kBoth, int64_t dim0;
        int64_t dim1;) {
  return transpose(in[0], dim0, dim1);
}

namespace {
Tensor matrix_transpose(const char* called, const Tensor& x) {
  DS_CHECK(x.dim() >= 2, called, " is only supported on matrices or batches of matrices. Got ", x.dim(), "-D tensor.");
  return transpose(x, -2, -1);
}
}  // namespace
DS_BODY(MatrixTranspose, "_matrix_transpose(Tensor input) -> Tensor", "The last two dims swapped.", false, kHidden, ) {
  return matrix_transpose("tensor.mT", in[0]);
}
DS_BODY(Adjoint, "adjoint(Tensor input) -> Tensor",
        "The last two dims swapped (a view), as `mT`: real numbers have nothing to conjugate.", false, kBoth, ) {
  return matrix_transpose("tensor.adjoint()", in[0]);
}

DS_BODY(Ravel, "ravel(Tensor input) -> Tensor",
        "1-d in row-major order; a view of a contiguous tensor, otherwise a copy.", false, kBoth, ) {
  return view(contiguous(in[0]), {in[0].numel()});
}

DS_BODY(Flipud, "flipud(Tensor input) -> Tensor", "Rows in reverse order (a copy).", false, kBoth, ) {
  DS_CHECK(in[0].dim() >= 1, "Input must be >= 1-d.");
  return flip(in[0], {0});
}
DS_BODY(Fliplr, "fliplr(Tensor input) -> Tensor", "Columns in reverse order (a copy).", false, kBoth, ) {
  DS_CHECK(in[0].dim() >= 2, "Input must be >= 2-d.");
  return flip(in[0], {1});
}

DS_BODY(Rot90, "rot90(Tensor input, int k=1, int[] dims=[0, 1]) -> Tensor",
        "Rotated by `k` quarter turns in the plane of two dims, from the first towards the second (a copy).", false,
        kBoth, int64_t k;
        Dims dims;) {
  const Tensor& x = in[0];
  DS_CHECK(dims.size() == 2, "expected total rotation dims == 2, but got dims = ", dims.size());
  DS_CHECK(x.dim() >= 2, "expected total dims >= 2, but got total dims = ", x.dim());
  const int64_t a = wrap_dim("rot90", dims[0], x.dim()), b = wrap_dim("rot90", dims[1], x.dim());
  DS_CHECK(a != b, "expected rotation dims to be different, but got dim0 = ", dims[0], " and dim1 = ", dims[1]);
  switch (k & 3) {  // of negative numbers too: two's complement
    case 1:
      return transpose(flip(x, {b}), a, b);
    case 2:
      return flip(x, {a, b});
    case 3:
      return flip(transpose(x, a, b), {b});
    default:
      return clone(x);
  }
}

}  // namespace deepseek
