#include "kernels/reduce/reduce_walk.h"

#include <algorithm>

#include "kernels/loops/lines.h"
#include "kernels/loops/rows.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

template <class C>
struct Walk {
  const ReducePlan& plan;
  const ReduceFns<C>& fns;
  const void* op;
  const C* params;
  const DType dtype = plan.in.dtype;
  const int64_t item = size_of(dtype);
  // What `dense` reads as it lies.
  const bool readable = reads_in_place<C>(dtype) || (fns.bytes && (dtype == DType::kBool || dtype == DType::kUInt8));

  // --- columns: outputs side by side in memory

  // Calls f(r, offset) for the n elements of a line from `begin` on.
  template <class F>
  void for_elements(int64_t begin, int64_t n, const F& f) const {
    int64_t run = 0, offset = 0;
    for (int64_t r = 0; r < n; ++r, --run) {
      offset = run > 0 ? offset + plan.red_in.back() : plan.reduced_offset(begin + r, &run);
      f(r, offset);
    }
  }

  // Reduces elements [begin, begin + n) of `width` neighbouring columns; the result is row 0 of acc. `converted` holds
  // kLanes rows.
  void columns(int64_t at, int64_t begin, int64_t n, int64_t width, const C* params_here, C* acc, C* converted) const {
    const int64_t stride = plan.kept_in.back();
    const bool in_place = stride == 1 && reads_in_place<C>(dtype);
    const int64_t most = in_place ? kLanes<C> * kRowsPerLane : kLanes<C>;
    const void* rows[kLanes<C> * kRowsPerLane];
    const char* const first = plan.in.at(at);
    const int64_t bytes = item;  // a local stays in a register
    for (int64_t i = 0; i < n; i += most) {
      const int64_t nrows = std::min(most, n - i);
      for_elements(begin + i, nrows, [&](int64_t r, int64_t offset) { rows[r] = first + offset * bytes; });
      if (!in_place)
        for (int64_t r = 0; r < nrows; ++r) {
          load_row(dtype, rows[r], stride, width, converted + r * kTile<C>);
          rows[r] = converted + r * kTile<C>;
        }
      fns.add_rows(op, in_place ? dtype : dtype_of<C>, rows, nrows, width, params_here, i == 0, acc);
    }
    fns.fold_rows(op, std::min(n, kLanes<C>), width, acc);
  }

  // Partials of one output lie `inner` apart here: [outer][chunk][inner].
  void all_columns(int64_t chunks, C* partials) const {
    const int64_t inner = plan.kept_sizes.back(), tiles = (inner + kTile<C> - 1) / kTile<C>;
    const int64_t items = plan.outputs / inner * tiles * chunks;
    const int64_t bytes = std::min(plan.length, kChunk<C>) * std::min(inner, kTile<C>) * sizeof(C);
    parallel_for(items, grain_for(bytes), [&](int64_t begin, int64_t end) {
      Buffer acc(kLanes<C> * kTileBytes), converted(kLanes<C> * kTileBytes);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t tile = item % tiles * kTile<C>, chunk = item / tiles % chunks, outer = item / tiles / chunks;
        const int64_t width = std::min(kTile<C>, inner - tile), first = chunk * kChunk<C>;
        const int64_t o = outer * inner + tile;
        columns(plan.kept_offset(o, plan.kept_in), first, std::min(kChunk<C>, plan.length - first), width,
                params ? params + o : nullptr, acc.as<C>(), converted.as<C>());
        std::copy_n(acc.as<C>(), width, partials + (outer * chunks + chunk) * inner + tile);
      }
    });
  }

  // --- rows: one output at a time

  // Elements [begin, begin + n) of one output: read in place where they lie contiguous, else converted into `buffer`.
  C line(const char* from, int64_t begin, int64_t n, C param, C* buffer) const {
    int64_t run, offset = plan.reduced_offset(begin, &run);
    const int64_t stride = plan.inner_reduced_stride();
    if (readable && run >= n && (stride == 1 || n == 1)) return fns.dense(op, dtype, from + offset * item, n, param);
    for (int64_t i = 0;;) {
      const int64_t count = std::min(run, n - i);
      load_row(dtype, from + offset * item, stride, count, buffer + i);
      i += count;
      if (i == n) return fns.dense(op, dtype_of<C>, buffer, n, param);
      offset = plan.reduced_offset(begin + i, &run);
    }
  }

  void all_rows(int64_t chunks, C* partials) const {
    const bool dense = readable && plan.red_sizes.size() <= 1 && plan.inner_reduced_stride() == 1;
    const char* const base = plan.in.at(0);
    parallel_for(
        plan.outputs * chunks, grain_for(std::min(plan.length, kChunk<C>) * item), [&](int64_t begin, int64_t end) {
          alignas(64) C buffer[kChunk<C>];
          for (int64_t i = begin; i < end; ++i) {
            const int64_t o = chunks == 1 ? i : i / chunks, first = (i - o * chunks) * kChunk<C>;
            const int64_t n = std::min(kChunk<C>, plan.length - first);
            const char* from = base + plan.kept_offset(o, plan.kept_in) * item;
            const C param = params ? params[o] : C(0);
            partials[i] =
                dense ? fns.dense(op, dtype, from + first * item, n, param) : line(from, first, n, param, buffer);
          }
        });
  }
};

}  // namespace

template <class C>
void reduce_walk(const ReducePlan& plan, const ReduceFns<C>& fns, const void* op, const C* params, C* results) {
  if (plan.outputs == 0) return;
  if (plan.length == 0) {  // adding 0 turns a sum's neutral -0.0 into 0.0
    std::fill_n(results, plan.outputs, static_cast<C>(fns.identity + C(0)));
    return;
  }
  const int64_t chunks = (plan.length + kChunk<C> - 1) / kChunk<C>;
  Scratch<C> storage(chunks > 1 ? plan.outputs * chunks : 0);
  C* partials = chunks > 1 ? storage.data() : results;
  const int64_t inner = plan.columns ? plan.kept_sizes.back() : 1;
  const Walk<C> walk{plan, fns, op, params};
  plan.columns ? walk.all_columns(chunks, partials) : walk.all_rows(chunks, partials);
  if (chunks == 1) return;
  parallel_for(plan.outputs, grain_for(chunks * sizeof(C)), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      C* first = partials + o / inner * chunks * inner + o % inner;
      fns.merge(first, chunks, inner);
      results[o] = *first;
    }
  });
}

#define DS_WALK(C) \
  template void reduce_walk<C>(const ReducePlan&, const ReduceFns<C>&, const void* op, const C* params, C* results);
DS_WALK(float)
DS_WALK(double)
DS_WALK(int64_t)
DS_WALK(int32_t)
DS_WALK(int16_t)
DS_WALK(int8_t)
DS_WALK(uint8_t)
#undef DS_WALK

}  // namespace deepseek::kernels
