// Sorting and selection along one dimension. NaN is the largest value, -0 equals 0, and among equal elements the one
// with the lower position comes first in every function here, whether ascending or descending. Indices are int64.
#pragma once

#include "base/view.h"

namespace deepseek::kernels {

// values, indices: the sizes of `in`. Always stable, so PyTorch's `stable` flag has nothing to switch.
void sort(const View& values, const View& indices, const View& in, int dim, bool descending);

// The k largest (or smallest) elements, best first; values and indices have k at `dim`, 0 <= k <= n.
void topk(const View& values, const View& indices, const View& in, int64_t k, int dim, bool largest);

// The k-th smallest, 1 <= k <= n; values and indices have 1 at `dim`.
void kthvalue(const View& values, const View& indices, const View& in, int64_t k, int dim);

// The lower median, n >= 1; a line with NaN gives its first NaN.
void median(const View& values, const View& indices, const View& in, int dim);

// Where each value would be inserted into its sorted line: before equal elements, or after them (`right`). `sorted` is
// 1-d, or shares all but the last dimension with `values`; both have one dtype. out: int64, the sizes of `values`.
void searchsorted(const View& out, const View& sorted, const View& values, bool right);

}  // namespace deepseek::kernels
