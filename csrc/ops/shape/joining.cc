// cat in the ways of NumPy's stacks: tensors of few dims get those that are missing first.
#include "ops/composite.h"

namespace deepseek {
namespace {

void check_some(const char* op, Inputs tensors) { DS_CHECK(!tensors.empty(), op, " expects a non-empty TensorList"); }

// [] becomes [1], [1, 1] or [1, 1, 1]; [n] becomes [n], [1, n] or [1, n, 1]; [m, n] becomes [m, n, 1].
Tensor at_least(int dims, const Tensor& t) {
  Dims sizes = t.sizes();
  if (dims == 3 && sizes.size() == 2) sizes.push_back(1);
  while (sizes.size() < dims) sizes.size() == 2 ? sizes.push_back(1) : sizes.insert(0, 1);
  return reshape(t, sizes);
}

TensorList all_at_least(int dims, Inputs tensors) {
  TensorList out;
  for (const Tensor& t : tensors) out.push_back(at_least(dims, t));
  return out;
}

Tensor joined_along_columns(Inputs tensors) {
  const TensorList parts = all_at_least(1, tensors);
  return cat(parts, parts[0].dim() == 1 ? 0 : 1);
}

}  // namespace

DS_BODY(Vstack, "vstack(Tensor[] tensors) -> Tensor", "Joined as rows: along dim 0, 1-d tensors being single rows.",
        false, kFunction, ) {
  check_some("vstack", in);
  return cat(all_at_least(2, in), 0);
}

DS_BODY(Hstack, "hstack(Tensor[] tensors) -> Tensor", "Joined along dim 1 (dim 0 for 1-d tensors).", false,
        kFunction, ) {
  check_some("hstack", in);
  return joined_along_columns(in);
}

DS_BODY(Dstack, "dstack(Tensor[] tensors) -> Tensor", "Joined along dim 2.", false, kFunction, ) {
  check_some("dstack", in);
  return cat(all_at_least(3, in), 2);
}

DS_BODY(ColumnStack, "column_stack(Tensor[] tensors) -> Tensor", "Joined as columns: 1-d tensors are single columns.",
        false, kFunction, ) {
  check_some("column_stack", in);
  TensorList columns;
  for (const Tensor& t : in) columns.push_back(t.dim() <= 1 ? reshape(t, {t.numel(), 1}) : t);
  return joined_along_columns(columns);
}

}  // namespace deepseek
