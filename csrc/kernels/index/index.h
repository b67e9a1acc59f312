// Indexed reads and writes. Indices are int64 or int32 views; all were checked before (check_indices), kernels do not
// check again. Writes with equal indices happen in index order, so results do not depend on the thread count.
#pragma once

#include <utility>
#include <vector>

#include "base/scalar.h"
#include "base/view.h"

namespace deepseek::kernels {

// Raises IndexError naming the first bad index. `allow_negative`: -size..size-1 (indexing), else 0..size-1 (gather,
// scatter …).
void check_indices(const char* op, const View& index, int64_t size, int dim, bool allow_negative);

// out[p] = in[p with p[dim] := index[p]]; out has index's sizes, which are at most in's outside `dim`.
void gather(const View& out, const View& in, const View& index, int dim);

enum class ScatterMode { kSet, kSum, kProd, kMin, kMax };
// out[p with p[dim] := index[p]] (mode)= src[p] for p over index's sizes. A scalar source is a view with strides 0. For
// the mean, scatter ones with kSum as well and divide.
void scatter(const View& out, const View& index, const View& src, int dim, ScatterMode mode);

// index is 1-d here. out.sizes[dim] == index.sizes[0]; other sizes are in's.
void index_select(const View& out, const View& in, int dim, const View& index);
// out[..., index[i], ...] += alpha * src[..., i, ...].
void index_add(const View& out, int dim, const View& index, const View& src, const Scalar& alpha);
void index_copy(const View& out, int dim, const View& index, const View& src);

// x[i0, :, i1, ...] with broadcast index tensors. Position p of `out_sizes` stands for the element at
// sum_d p[d] * strides[d] + sum_k wrap(indices[k][p]) * index_strides[k] of the indexed tensor.
struct IndexPlan {
  Dims out_sizes;
  Dims strides;               // of the indexed tensor, 0 on dimensions that come from index tensors
  std::vector<View> indices;  // expanded to out_sizes by stride 0
  std::vector<int64_t> index_strides;
  std::vector<int64_t> index_sizes;  // of the indexed dimensions: negative indices wrap
};
void index_get(const View& out, const void* in, const IndexPlan& plan);
// values has out_sizes (broadcast by stride 0) and the dtype of dst.
void index_put(void* dst, const View& values, const IndexPlan& plan, bool accumulate);

// The least and the largest of contiguous int64 numbers, of which there is one.
std::pair<int64_t, int64_t> index_range(const View& index);
// out[index[i]] += 1 or weights[i] (in index order); out is contiguous, int64 or the weights' dtype (f32, f64).
void bincount(const View& out, const View& index, const View* weights = nullptr);

}  // namespace deepseek::kernels
