#include "kernels/index/embedding.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/index/index_walk.h"
#include "kernels/simd/routes.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

// The positions of each row in `index`, in order: positions[starts[r] .. starts[r + 1]).
struct RowLists {
  std::vector<int64_t> starts, positions, used;  // used: rows that occur

  RowLists(const View& index, int64_t rows, int64_t skip) : starts(rows + 1, 0) {
    const IndexReader ids(index);
    const int64_t n = index.numel();
    for (int64_t i = 0; i < n; ++i)
      if (ids[i] != skip) ++starts[ids[i] + 1];
    for (int64_t r = 0; r < rows; ++r) {
      if (starts[r + 1] > 0) used.push_back(r);
      starts[r + 1] += starts[r];
    }
    positions.resize(starts[rows]);
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    for (int64_t i = 0; i < n; ++i)
      if (ids[i] != skip) positions[next[ids[i]]++] = i;
  }
};

constexpr int64_t kColumns = 256;  // summed together, in the L1 cache

template <class T>
void sum_row(T* to, const T* grad, int64_t d, const RowLists& lists, int64_t row, int64_t columns, bool scale_by_freq,
             bool add) {
  using C = ComputeType<T>;
  C sums[kColumns];
  for (int64_t j = 0; j < columns; ++j) sums[j] = C(0);
  const int64_t begin = lists.starts[row], end = lists.starts[row + 1];
  for (int64_t k = begin; k < end; ++k) {
    const T* from = grad + lists.positions[k] * d;
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) sums[j] += static_cast<C>(from[j]);
  }
  const C scale = scale_by_freq ? C(1) / static_cast<C>(end - begin) : C(1);
  for (int64_t j = 0; j < columns; ++j) {
    const T sum = T(sums[j] * scale);
    to[j] = add ? T(static_cast<C>(to[j]) + static_cast<C>(sum)) : sum;
  }
}

template <class T>
void backward(const View& grad_weight, const View& grad, const View& index, int64_t padding_idx, bool scale_by_freq,
              bool add) {
  const int64_t rows = grad_weight.sizes[0], d = grad_weight.sizes[1], row_stride = grad_weight.strides[0];
  T* const weight = grad_weight.as<T>();
  // A vocabulary is mostly zeros. Long runs are cleared without reading the memory first, rows of a few KiB are not.
  const bool dense = row_stride == d;
  const auto clear = [&](int64_t row, int64_t count) {
    std::memset(static_cast<void*>(weight + row * row_stride), 0, static_cast<size_t>(count * d) * sizeof(T));
  };
  const RowLists lists(index, rows, padding_idx);
  if (!add)
    parallel_for(rows, grain_for(d * sizeof(T)), [&](int64_t begin, int64_t end) {
      if (dense) return clear(begin, end - begin);
      for (int64_t r = begin; r < end; ++r) clear(r, 1);
    });
  const int64_t used = static_cast<int64_t>(lists.used.size()), blocks = (d + kColumns - 1) / kColumns;
  // Column blocks outermost: frequent rows are then shared between threads.
  parallel_for(used * blocks, grain_for(kColumns * sizeof(T) * 2), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t row = lists.used[u % used], j = u / used * kColumns;
      sum_row(weight + row * row_stride + j, grad.as<T>() + j, d, lists, row, std::min(kColumns, d - j), scale_by_freq,
              add);
    }
  });
}

}  // namespace

void embedding(const View& out, const View& weight, const View& index) {
  count_route(Route::kEmbedding);
  const IndexReader ids(index);
  const int64_t n = index.numel(), d = weight.sizes[1], item = size_of(weight.dtype), bytes = d * item;
  DS_CHECK(d <= 1 || weight.strides[1] == 1, "embedding kernel: weight rows are not contiguous");
  if (bytes == 0) return;
  char* const to = out.as<char>();
  parallel_for(n, grain_for(bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(to + i * bytes, weight.at(ids[i] * weight.strides[0]), static_cast<size_t>(bytes));
  });
}

void embedding_backward(const View& grad_weight, const View& grad, const View& index, int64_t padding_idx,
                        bool scale_by_freq, bool add) {
  count_route(add ? Route::kEmbeddingBackwardAdd : Route::kEmbeddingBackward);
  dispatch(grad_weight.dtype, [&]<class T>() {
    if constexpr (is_floating(dtype_of<T>))
      backward<T>(grad_weight, grad, index, padding_idx, scale_by_freq, add);
    else
      fail<TypeError>("embedding_backward: gradients are floating, got ", grad_weight.dtype);
  });
}

}  // namespace deepseek::kernels
