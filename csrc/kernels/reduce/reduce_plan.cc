#include "kernels/reduce/reduce_plan.h"

#include <algorithm>
#include <cstdlib>

#include "kernels/loops/rows.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

// Broadcast dimensions (stride 0) have no neighbours in memory: they sort outermost.
uint64_t distance(int64_t stride) { return static_cast<uint64_t>(std::abs(stride)) - 1; }

void sort_by_distance(Dims& axes, const Dims& strides) {
  sort_axes(axes, [&](int64_t a, int64_t b) { return distance(strides[a]) > distance(strides[b]); });
}

}  // namespace

ReducePlan::ReducePlan(const View& out_view, const View& in_view) : in(in_view), out(out_view) {
  DS_CHECK(in.ndim() == out.ndim(), "internal: reduce of rank ", in.ndim(), " into rank ", out.ndim());
  Dims kept, reduced;
  for (int d = 0; d < in.ndim(); ++d) {
    DS_CHECK(out.sizes[d] == in.sizes[d] || out.sizes[d] == 1, "internal: reduce of ", in.sizes, " into ", out.sizes);
    if (in.sizes[d] == 1) continue;
    (out.sizes[d] == in.sizes[d] ? kept : reduced).push_back(d);
  }
  sort_by_distance(kept, in.strides);
  sort_by_distance(reduced, in.strides);
  for (int64_t d : kept) {
    const int64_t n = in.sizes[d], si = in.strides[d], so = out.strides[d];
    outputs *= n;
    if (!kept_sizes.empty() && kept_in.back() == si * n && kept_out.back() == so * n) {
      kept_sizes.back() *= n, kept_in.back() = si, kept_out.back() = so;
    } else {
      kept_sizes.push_back(n), kept_in.push_back(si), kept_out.push_back(so);
    }
  }
  for (int64_t d : reduced) {
    const int64_t n = in.sizes[d], si = in.strides[d];
    length *= n;
    if (!red_sizes.empty() && red_in.back() == si * n) {
      red_sizes.back() *= n, red_in.back() = si;
    } else {
      red_sizes.push_back(n), red_in.push_back(si);
    }
  }
  columns = !kept_in.empty() && !red_in.empty() && distance(kept_in.back()) < distance(red_in.back());
}

int64_t ReducePlan::kept_offset(int64_t index, const Dims& strides) const {
  int64_t at = 0;
  for (int d = kept_sizes.size() - 1; d > 0; --d) {
    at += index % kept_sizes[d] * strides[d];
    index /= kept_sizes[d];
  }
  return kept_sizes.empty() ? 0 : at + index * strides[0];
}

int64_t ReducePlan::reduced_offset(int64_t index, int64_t* run) const {
  if (index == 0) {
    *run = red_sizes.empty() ? 1 : red_sizes.back();
    return 0;
  }
  int64_t at = 0;
  *run = 1;
  for (int d = red_sizes.size() - 1; d >= 0; --d) {
    const int64_t i = index % red_sizes[d];
    if (d == red_sizes.size() - 1) *run = red_sizes[d] - i;
    at += i * red_in[d];
    index /= red_sizes[d];
  }
  return at;
}

template <class C>
void store_results(const ReducePlan& plan, const C* results) {
  const int64_t inner = plan.kept_sizes.empty() ? 1 : plan.kept_sizes.back();
  const int64_t stride = plan.kept_out.empty() ? 1 : plan.kept_out.back();
  // Ranges are cut inside a row too: one long row of outputs is the common case.
  parallel_for(plan.outputs, grain_for(sizeof(C)), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t n = std::min(end - begin, inner - begin % inner);
      store_row(plan.out.dtype, plan.out.at(plan.kept_offset(begin, plan.kept_out)), stride, n, results + begin);
      begin += n;
    }
  });
}

template void store_results<float>(const ReducePlan&, const float*);
template void store_results<double>(const ReducePlan&, const double*);
template void store_results<int64_t>(const ReducePlan&, const int64_t*);
template void store_results<int32_t>(const ReducePlan&, const int32_t*);
template void store_results<int16_t>(const ReducePlan&, const int16_t*);
template void store_results<int8_t>(const ReducePlan&, const int8_t*);
template void store_results<uint8_t>(const ReducePlan&, const uint8_t*);

}  // namespace deepseek::kernels
