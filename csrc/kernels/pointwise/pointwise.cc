#include "kernels/pointwise/pointwise.h"

#include <algorithm>
#include <array>

#include "kernels/loops/cast.h"
#include "kernels/loops/iter.h"
#include "kernels/pointwise/lanes.h"
#include "kernels/simd/routes.h"
#include "kernels/simd/stream.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {
namespace {

constexpr int kMaxOperands = 4;
constexpr int64_t kBlock = 1024;
constexpr int64_t kGrain = 16 * 1024;

const LaneFns& lane_fns(Pointwise op) {
  static const auto table = [] {
    std::array<LaneFns, static_cast<size_t>(Pointwise::kCount)> fns;
    fill_arithmetic(fns.data());
    fill_comparison(fns.data());
    fill_functions(fns.data());
    return fns;
  }();
  return table[static_cast<size_t>(op)];
}

// What one operand needs to become contiguous lanes.
struct Lane {
  bool direct;    // as the function reads or writes it: contiguous, and of the right type
  bool constant;  // stride 0 along the inner dim
  int64_t stride;
  int64_t item;
  CastFn cast;
  const char* filled = nullptr;  // the constant now in the buffer,
  int64_t filled_lanes = 0;      // and in how many of its lanes
};

// A function that makes lanes or, where `small` is not null, 16-bit floats.
struct BlockFn {
  LaneFn lanes;
  SmallFn small;
  unsigned wide;
  void operator()(void* out, const void* const* in, int64_t n) const {
    small ? small(out, in, wide, n) : lanes(out, in, n);
  }
};

void run_blocks(const BlockFn& fn, int arity, const Loop<kMaxOperands>& loop,
                const std::array<Lane, kMaxOperands>& shared, bool stream, int64_t begin, int64_t end) {
  alignas(64) char buffers[kMaxOperands][kBlock * 8];
  std::array<Lane, kMaxOperands> lanes = shared;
  const Lane& out = shared[0];
  // Elements [at, at + n) of an inner segment, n <= kBlock, to `target`.
  const auto block = [&](const auto& p, int64_t at, int64_t n, char* target) {
    const void* in[3];
    for (int k = 1; k <= arity; ++k) {
      Lane& lane = lanes[k];
      char* source = p[k] + at * lane.stride * lane.item;
      if (lane.direct) {
        in[k - 1] = source;
        continue;
      }
      in[k - 1] = buffers[k];
      if (lane.constant && lane.filled == source && lane.filled_lanes >= n) continue;  // spread once for all blocks
      lane.cast(buffers[k], 1, source, lane.stride, n);
      lane.filled = lane.constant ? source : nullptr;
      lane.filled_lanes = n;
    }
    if (out.direct) return fn(target, in, n);
    fn(buffers[0], in, n);
    out.cast(target, out.stride, buffers[0], 1, n);
  };
  loop.for_range(begin, end, [&](const auto& p, int64_t count) {
    if (stream)
      return stream_items(p[0], out.item, 0, count,
                          [&](int64_t at, int64_t n, char* buffer) { block(p, at, n, buffer); });
    for (int64_t at = 0; at < count; at += kBlock)
      block(p, at, std::min(kBlock, count - at), p[0] + at * out.stride * out.item);
  });
  if (stream) stream_fence();
}

}  // namespace

namespace {
LaneFn lane_function(Pointwise op, DType lane, size_t arity) {
  const LaneFns& fns = lane_fns(op);
  const LaneFn fn = fns.fn[static_cast<size_t>(lane)];
  DS_CHECK(fn != nullptr && fns.arity == arity, "internal error: no pointwise kernel for ", name_of(lane));
  return fn;
}

RouteTarget target_of(Pointwise op) { return lane_fns(op).target; }

void flat_blocks(LaneFn fn, DType lane, char* out, std::span<const FlatInput> inputs, bool stream, int64_t begin,
                 int64_t end) {
  alignas(64) char spread_values[kMaxOperands - 1][kBlock * 8];
  const int64_t item = size_of(lane);
  const void* in[kMaxOperands - 1];
  for (size_t k = 0; k < inputs.size(); ++k)
    if (inputs[k].constant)
      cast_function(inputs[k].dtype, lane)(spread_values[k], 1, inputs[k].data, 0, std::min(kBlock, end - begin));
  const auto block = [&](int64_t at, int64_t n, char* target) {
    for (size_t k = 0; k < inputs.size(); ++k)
      in[k] = inputs[k].constant ? spread_values[k] : static_cast<const char*>(inputs[k].data) + at * item;
    fn(target, in, n);
  };
  if (stream) {
    stream_items(out, item, begin, end, block);
    return stream_fence();
  }
  for (int64_t at = begin; at < end; at += kBlock) block(at, std::min(kBlock, end - at), out + at * item);
}
}  // namespace

void pointwise_flat(Pointwise op, DType lane, int64_t n, void* out, std::span<const FlatInput> inputs) {
  const LaneFn fn = lane_function(op, lane, inputs.size());
  char* to = static_cast<char*>(out);
  const bool constants = std::any_of(inputs.begin(), inputs.end(), [](const FlatInput& i) { return i.constant; });
  count_route(constants ? Route::kPointwiseSpread : Route::kPointwiseDirect, target_of(op));
  const auto read = std::count_if(inputs.begin(), inputs.end(), [](const FlatInput& i) { return !i.constant; });
  const bool in_place = std::any_of(inputs.begin(), inputs.end(), [&](const FlatInput& i) { return i.data == out; });
  const bool stream = !in_place && streams(n * size_of(lane) * (1 + read));
  if (stream) count_route(Route::kPointwiseStream);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    if (constants || stream) return flat_blocks(fn, lane, to, inputs, stream, begin, end);
    const void* in[kMaxOperands - 1];
    const int64_t start = begin * size_of(lane);
    for (size_t k = 0; k < inputs.size(); ++k) in[k] = static_cast<const char*>(inputs[k].data) + start;
    fn(to + start, in, end - begin);
  });
}

void pointwise(Pointwise op, DType compute, const View& out, std::span<const View> inputs) {
  const DType lane = lane_type(compute);
  BlockFn fn{.lanes = lane_function(op, lane, inputs.size()), .small = nullptr, .wide = 0};
  const int64_t n = out.numel();
  if (n == 0) return;
  count_route(Route::kPointwiseBlocks, target_of(op));

  Loop<kMaxOperands> loop;
  loop.add(out);
  for (const View& v : inputs) loop.add(v);
  loop.collapse();
  const LaneFns& fns = lane_fns(op);
  if (lane == DType::kFloat32 && loop.inner_stride(0) == 1)
    fn.small = out.dtype == DType::kBFloat16 ? fns.bfloat16 : out.dtype == DType::kFloat16 ? fns.half : nullptr;
  if (fn.small) count_route(Route::kPointwiseSmallFloats, target_of(op));
  // What the function reads and writes besides lanes. A bool is a lane of 0 or 1.
  const auto native = [&](int k, DType dtype) {
    if (dtype == DType::kBool) return lane == DType::kUInt8 && (k > 0 || fns.truth);
    return dtype == lane;
  };
  std::array<Lane, kMaxOperands> lanes{};
  int64_t bytes = 0;
  bool in_place = false;
  for (int k = 0; k < loop.operands; ++k) {
    const DType dtype = k == 0 ? out.dtype : inputs[k - 1].dtype;
    const int64_t stride = loop.inner_stride(k);
    const bool small = fn.small && dtype == out.dtype && stride == 1;
    if (k > 0 && !small) fn.wide |= 1u << (k - 1);
    lanes[k] = {.direct = small || (native(k, dtype) && stride == 1),
                .constant = k > 0 && stride == 0,
                .stride = stride,
                .item = size_of(dtype),
                .cast = k == 0 ? cast_function(lane, dtype) : cast_function(dtype, lane)};
    if (!lanes[k].constant) bytes += n * lanes[k].item;
    in_place |= k > 0 && loop.data[k] == loop.data[0];
  }
  const Lane& to = lanes[0];
  const bool stream = !in_place && to.stride == 1 && loop.inner() * to.item >= kStreamBlock && streams(bytes);
  if (stream) count_route(Route::kPointwiseStream);
  parallel_for(n, kGrain, [&](int64_t b, int64_t e) {
    run_blocks(fn, static_cast<int>(inputs.size()), loop, lanes, stream, b, e);
  });
}

}  // namespace deepseek::kernels
