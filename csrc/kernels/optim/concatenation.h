// Work over many tensors as if they were one: it is cut where the threads need it, not where a tensor ends.
#pragma once

#include <algorithm>
#include <vector>

#include "runtime/parallel.h"

namespace deepseek::kernels {

// f(tensor index, begin, end) over the concatenation of all tensors.
template <class Tensors, class F>
void over_concatenation(const Tensors& tensors, int64_t bytes_per_element, F&& f) {
  std::vector<int64_t> starts(tensors.size() + 1, 0);
  for (size_t i = 0; i < tensors.size(); ++i) starts[i + 1] = starts[i] + tensors[i].numel;
  parallel_for(starts.back(), grain_for(bytes_per_element), [&](int64_t begin, int64_t end) {
    size_t i = std::upper_bound(starts.begin(), starts.end(), begin) - starts.begin() - 1;
    for (; begin < end; ++i) {
      const int64_t stop = std::min(end, starts[i + 1]);
      if (stop > begin) f(i, begin - starts[i], stop - starts[i]);
      begin = stop;
    }
  });
}

}  // namespace deepseek::kernels
