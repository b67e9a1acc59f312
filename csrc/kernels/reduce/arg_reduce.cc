#include "kernels/reduce/arg_reduce.h"

#include <cstring>

#include "kernels/simd/routes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce/arg_reduce.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/reduce/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// A line in its own dtype, read a chunk at a time.
struct SourceLine {
  DType dtype;
  const char* data;
  int64_t stride, n;
};

template <class C>
const C* ReadLineChunk(const SourceLine& line, int64_t begin, int64_t n, C* buffer) {
  const char* p = line.data + begin * line.stride * size_of(line.dtype);
  if (line.dtype == dtype_of<C> && line.stride == 1) return reinterpret_cast<const C*>(p);
  load_row(line.dtype, p, line.stride, n, buffer);
  return buffer;
}

// Position of the first element equal to `value` (the first NaN when it is NaN); there is one.
template <class C>
int64_t FindFirst(const C* p, int64_t n, C value) {
  const Tag<C> d;
  const auto wanted = hn::Set(d, value);
  [[maybe_unused]] const bool nan = value != value;
  for (int64_t i = 0; i < n; i += kVector<C>) {
    const auto valid = hn::FirstN(d, static_cast<size_t>(std::min<int64_t>(kVector<C>, n - i)));
    const auto x = hn::MaskedLoad(valid, d, p + i);
    auto equal = hn::Eq(x, wanted);
    if constexpr (hwy::IsFloat<C>())
      if (nan) equal = hn::IsNaN(x);
    const auto hit = hn::And(valid, equal);
    const intptr_t at = hn::FindFirstTrue(d, hit);
    if (at >= 0) return i + at;
  }
  fail("internal: extreme value not found in its chunk");
}

// The chunk that holds the answer comes from the chunks' extremes; only that chunk is searched for the position.
template <class Op, class C>
int64_t ArgLine(const SourceLine& line, bool is_max) {
  const int64_t chunks = (line.n + kChunk<C> - 1) / kChunk<C>;
  Scratch<C> extremes(chunks);
  auto size = [&](int64_t c) { return std::min(kChunk<C>, line.n - c * kChunk<C>); };
  parallel_for(chunks, 16, [&](int64_t begin, int64_t end) {
    alignas(64) C buffer[kChunk<C>];
    for (int64_t c = begin; c < end; ++c)
      extremes[c] = ReduceChunk(Op(), ReadLineChunk(line, c * kChunk<C>, size(c), buffer), size(c), C(0));
  });
  int64_t best = 0;
  for (int64_t c = 1; c < chunks && extremes[best] == extremes[best]; ++c) {
    const C x = extremes[c], y = extremes[best];
    if (x != x || (is_max ? x > y : x < y)) best = c;
  }
  alignas(64) C buffer[kChunk<C>];
  const C* p = ReadLineChunk(line, best * kChunk<C>, size(best), buffer);
  return best * kChunk<C> + FindFirst(p, size(best), extremes[best]);
}

template <class C>
void ArgReduceAs(const View& values, const View& indices, const View& in, int dim, bool is_max) {
  auto one = [&](const SourceLine& line, void* index, void* value, const RawLine& source) {
    const int64_t at = is_max ? ArgLine<MaxOp, C>(line, true) : ArgLine<MinOp, C>(line, false);
    if (index) *static_cast<int64_t*>(index) = at;
    const int64_t bytes = size_of(in.dtype);
    if (value) std::memcpy(value, static_cast<const char*>(source.data) + at * source.stride * bytes, bytes);
  };
  const int64_t n = in.ndim() == 0 ? 1 : in.sizes[dim];
  DS_CHECK(n > 0 || in.numel() == indices.numel(), "internal: argmax over no elements");
  if (indices.numel() == 0) return;
  if (in.numel() == n) {  // a single line is read where it lies, by all threads
    const RawLine source{in.data, in.ndim() == 0 ? 1 : in.strides[dim]};
    return one({in.dtype, in.as<char>(), source.stride, n}, indices.data, values.data, source);
  }
  View value_view = values.data ? values : indices;
  for_each_line<C, 1, 0, 3>({in}, {}, {indices, value_view, in}, dim,
                            [&](const auto& line, const auto&, const auto& raw) {
                              one({dtype_of<C>, reinterpret_cast<const char*>(line[0]), 1, n}, raw[0].data,
                                  values.data ? raw[1].data : nullptr, raw[2]);
                            });
}

void ArgReduce(const View& values, const View& indices, const View& in, int dim, bool is_max) {
  DS_COUNT_ROUTE(ArgReduce);
  dispatch_sum(is_max ? "max" : "min", in.dtype, [&]<class C>() { ArgReduceAs<C>(values, indices, in, dim, is_max); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(ArgReduce);

void arg_reduce(const View& out, const View& in, int dim, bool is_max) {
  HWY_DYNAMIC_DISPATCH(ArgReduce)(View{}, out, in, dim, is_max);
}
void min_max_with_index(const View& values, const View& indices, const View& in, int dim, bool is_max) {
  HWY_DYNAMIC_DISPATCH(ArgReduce)(values, indices, in, dim, is_max);
}
}  // namespace deepseek::kernels
#endif
