// x[index tensors] as a walk with one index: of several, their offsets are added up first.
#include <algorithm>
#include <optional>

#include "kernels/index/index.h"
#include "kernels/index/index_walk.h"
#include "runtime/allocator.h"

namespace deepseek::kernels {
namespace {

// The indices of a plan as one, of elements of the indexed tensor.
class OneIndex {
 public:
  explicit OneIndex(const IndexPlan& plan) {
    if (plan.indices.size() == 1) {
      view_ = plan.indices[0];
      step = plan.index_strides[0], size = plan.index_sizes[0];
      return;
    }
    sum_offsets(plan);
    step = 1;
  }
  const View& view() const { return view_; }

  int64_t step, size;
  int64_t lowest = 0;  // added to every offset

 private:
  // Offsets for the dims on which some index varies, the others by stride 0.
  void sum_offsets(const IndexPlan& plan) {
    Dims sizes = plan.out_sizes, strides = Dims::filled(plan.out_sizes.size(), 0);
    int64_t n = 1;
    for (int d = sizes.size() - 1; d >= 0; --d) {
      const bool varies = std::any_of(plan.indices.begin(), plan.indices.end(),
                                      [&](const View& v) { return v.strides[d] != 0 && v.sizes[d] != 1; });
      if (!varies) {
        sizes[d] = 1;
        continue;
      }
      strides[d] = n;
      n *= sizes[d];
    }
    buffer_.emplace(static_cast<size_t>(n) * sizeof(int64_t));
    int64_t* const at = buffer_->as<int64_t>();
    std::fill_n(at, n, 0);
    for (size_t k = 0; k < plan.indices.size(); ++k) {
      const int64_t step = plan.index_strides[k], size = plan.index_sizes[k];
      View index = plan.indices[k];
      index.sizes = sizes;
      const bool wide = IndexReader(index).wide;
      Loop<2> loop;
      loop.add({at, DType::kInt64, sizes, strides});
      loop.add(index);
      merge_in_order(loop);
      const int64_t index_step = loop.strides[1].back();
      const auto add = [&]<class Id>(int64_t* to, const Id* ids, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
          const int64_t id = ids[i * index_step];
          to[i] += (id + (id < 0 ? size : 0)) * step;
        }
      };
      parallel_for(n, grain_for(24), [&](int64_t begin, int64_t end) {
        loop.for_range(begin, end, [&](const auto& p, int64_t count) {
          int64_t* const to = reinterpret_cast<int64_t*>(p[0]);
          if (wide)
            add(to, reinterpret_cast<const int64_t*>(p[1]), count);
          else
            add(to, reinterpret_cast<const int32_t*>(p[1]), count);
        });
      });
    }
    const auto [low, high] = std::minmax_element(at, at + n);
    lowest = *low, size = *high - *low + 1;
    if (lowest != 0)
      for (int64_t i = 0; i < n; ++i) at[i] -= lowest;
    view_ = {at, DType::kInt64, plan.out_sizes, strides};
  }

  View view_;
  std::optional<Buffer> buffer_;
};

IndexWalk walk_of(const IndexPlan& plan, const OneIndex& index, const View& flat, void* indexed) {
  View table{indexed, flat.dtype, plan.out_sizes, plan.strides};
  table.data = table.at(index.lowest);
  return {flat, index.view(), table, index.step, index.size, plan.indices.size() == 1};
}

bool nothing(const IndexPlan& plan) {
  return std::any_of(plan.out_sizes.begin(), plan.out_sizes.end(), [](int64_t n) { return n == 0; });
}

}  // namespace

void index_get(const View& out, const void* in, const IndexPlan& plan) {
  if (nothing(plan)) return;
  const OneIndex index(plan);
  with_word(size_of(out.dtype),
            [&]<class Word>() { walk_of(plan, index, out, const_cast<void*>(in)).read<Word>(TakeFromTable{}); });
}

void index_put(void* dst, const View& values, const IndexPlan& plan, bool accumulate) {
  if (nothing(plan)) return;
  const OneIndex index(plan);
  IndexWalk walk = walk_of(plan, index, values, dst);
  if (!accumulate) return with_word(size_of(values.dtype), [&]<class Word>() { walk.write<Word>(PutIntoTable{}); });
  dispatch(values.dtype,
           [&]<class T>() { walk.write<T>(EachElement{[](T& to, const T& from) { to = add_values(to, from); }}); });
}

}  // namespace deepseek::kernels
