#include "kernels/pointwise/pointwise.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "kernels/loops/cast.h"
#include "kernels/loops/iter.h"
#include "kernels/simd/routes.h"
#include "kernels/simd/stream.h"
#include "runtime/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pointwise/pointwise.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "kernels/pointwise/pointwise_math-inl.h"
#include "kernels/simd/float_io-inl.h"

#ifndef DEEPSEEK_POINTWISE_TABLE
#define DEEPSEEK_POINTWISE_TABLE
namespace deepseek::kernels {
// Contiguous lanes in, contiguous lanes out.
using LaneFn = void (*)(void* out, const void* const* in, size_t n);
// A 16-bit float out and in, computed as float lanes; the inputs whose bits are set in `wide` are float lanes already.
using SmallFn = void (*)(void* out, const void* const* in, unsigned wide, size_t n);
struct LaneFns {
  uint8_t arity = 0;
  RouteTarget target = RouteTarget::kAvx2;
  bool truth = false;          // bool lanes in, 0 and 1 out
  LaneFn fn[kNumDTypes] = {};  // by lane type
  SmallFn bfloat16 = nullptr, half = nullptr;
};
using LaneTable = std::array<LaneFns, static_cast<size_t>(Pointwise::kCount)>;
}  // namespace deepseek::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

constexpr unsigned F = 1, I = 2, FI = 3;

// The expression of the vectors load(0), load(1) ...
template <class Expr, class D, class Load>
HWY_INLINE hn::Vec<D> Evaluate(D d, const Load& load) {
  if constexpr (Expr::kArity == 1) return Expr::Float(d, load(0));
  if constexpr (Expr::kArity == 2) return Expr::Float(d, load(0), load(1));
  if constexpr (Expr::kArity == 3) return Expr::Float(d, load(0), load(1), load(2));
}

template <class Expr, class T>
void RunFloat(void* out_raw, const void* const* in_raw, size_t n) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  T* out = static_cast<T*>(out_raw);
  const T* in[3] = {};
  for (int k = 0; k < Expr::kArity; ++k) in[k] = static_cast<const T*>(in_raw[k]);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(Evaluate<Expr>(d, [&](int k) HWY_ATTR { return hn::LoadU(d, in[k] + i); }), d, out + i);
  if (i == n) return;
  const auto mask = hn::FirstN(d, n - i);
  const auto rest = Evaluate<Expr>(d, [&](int k) HWY_ATTR { return hn::MaskedLoad(mask, d, in[k] + i); });
  hn::BlendedStore(rest, mask, d, out + i);
}

// Results that are the operand, its negative or 0 need no rounding.
template <class Expr>
inline constexpr bool kExact = false;

template <class Expr, class S>
void RunSmall(void* out_raw, const void* const* in, unsigned wide, size_t n) {
  const hn::ScalableTag<float> d;
  constexpr size_t kLanes = hn::MaxLanes(d), kPair = 2 * kLanes;
  S* out = static_cast<S*>(out_raw);
  const auto vector = [&](size_t i) HWY_ATTR {
    return Evaluate<Expr>(d, [&](int k) HWY_ATTR {
      return wide >> k & 1 ? hn::LoadU(d, static_cast<const float*>(in[k]) + i)
                           : load_as(d, static_cast<const S*>(in[k]) + i);
    });
  };
  size_t i = 0;
  for (; i + kPair <= n; i += kPair) {
    const auto first = vector(i), second = vector(i + kLanes);
    if constexpr (kExact<Expr> && std::is_same_v<S, BFloat16>)
      if (wide == 0) {
        store_upper_pair(d, first, second, out + i);
        continue;
      }
    store_pair_as(d, first, second, out + i);
  }
  if (i == n) return;
  alignas(64) char padded[Expr::kArity][kPair * sizeof(float)] = {};
  const void* rest[Expr::kArity];
  for (int k = 0; k < Expr::kArity; ++k) {
    const size_t item = wide >> k & 1 ? sizeof(float) : sizeof(S);
    std::memcpy(padded[k], static_cast<const char*>(in[k]) + i * item, (n - i) * item);
    rest[k] = padded[k];
  }
  S result[kPair];
  RunSmall<Expr, S>(result, rest, wide, kPair);
  std::copy_n(result, n - i, out + i);
}

template <class Expr, class T>
void RunInt(void* out_raw, const void* const* in_raw, size_t n) {
  T* out = static_cast<T*>(out_raw);
  const T* a = static_cast<const T*>(in_raw[0]);
  const T* b = Expr::kArity > 1 ? static_cast<const T*>(in_raw[1]) : nullptr;
  const T* c = Expr::kArity > 2 ? static_cast<const T*>(in_raw[2]) : nullptr;
  for (size_t i = 0; i < n; ++i) {
    if constexpr (Expr::kArity == 1) out[i] = Expr::Int(a[i]);
    if constexpr (Expr::kArity == 2) out[i] = Expr::Int(a[i], b[i]);
    if constexpr (Expr::kArity == 3) out[i] = Expr::Int(a[i], b[i], c[i]);
  }
}

// Whether an op's results are 0 or 1: those of any operands, or of kBits where the operands are.
constexpr bool IsTruth(std::string_view rule, std::string_view name) {
  return rule == "kCompare" || rule == "kLogical" || (rule == "kBits" && name != "bitwise_not");
}

#define DS_INT_ALIASES using U [[maybe_unused]] = Wrapping<T>
#define DS_UNARY(S, name, rule, kernels, fexpr, iexpr, ...)                 \
  struct S##Expr {                                                          \
    static constexpr int kArity = 1;                                        \
    static constexpr unsigned kKernels = kernels;                           \
    static constexpr bool kTruth = IsTruth(#rule, #name);                   \
    template <class D, class V>                                             \
    static HWY_INLINE V Float([[maybe_unused]] D d, [[maybe_unused]] V a) { \
      return fexpr;                                                         \
    }                                                                       \
    template <class T>                                                      \
    static HWY_INLINE T Int([[maybe_unused]] T a) {                         \
      DS_INT_ALIASES;                                                       \
      return iexpr;                                                         \
    }                                                                       \
  };
#define DS_BINARY(S, name, rule, kernels, fexpr, iexpr, ...)                                      \
  struct S##Expr {                                                                                \
    static constexpr int kArity = 2;                                                              \
    static constexpr unsigned kKernels = kernels;                                                 \
    static constexpr bool kTruth = IsTruth(#rule, #name);                                         \
    template <class D, class V>                                                                   \
    static HWY_INLINE V Float([[maybe_unused]] D d, [[maybe_unused]] V a, [[maybe_unused]] V b) { \
      return fexpr;                                                                               \
    }                                                                                             \
    template <class T>                                                                            \
    static HWY_INLINE T Int([[maybe_unused]] T a, [[maybe_unused]] T b) {                         \
      DS_INT_ALIASES;                                                                             \
      return iexpr;                                                                               \
    }                                                                                             \
  };
#define DS_TERNARY(S, name, rule, kernels, fexpr, iexpr, ...)                                   \
  struct S##Expr {                                                                              \
    static constexpr int kArity = 3;                                                            \
    static constexpr unsigned kKernels = kernels;                                               \
    static constexpr bool kTruth = IsTruth(#rule, #name);                                       \
    template <class D, class V>                                                                 \
    static HWY_INLINE V Float([[maybe_unused]] D d, [[maybe_unused]] V a, [[maybe_unused]] V b, \
                              [[maybe_unused]] V c) {                                           \
      return fexpr;                                                                             \
    }                                                                                           \
    template <class T>                                                                          \
    static HWY_INLINE T Int([[maybe_unused]] T a, [[maybe_unused]] T b, [[maybe_unused]] T c) { \
      DS_INT_ALIASES;                                                                           \
      return iexpr;                                                                             \
    }                                                                                           \
  };
DS_BINARY(Add, add, kArith, FI, hn::Add(a, b), T(U(a) + U(b)))
DS_BINARY(Sub, sub, kNumeric, FI, hn::Sub(a, b), T(U(a) - U(b)))
#include "kernels/pointwise/pointwise.def"
#undef DS_UNARY
#undef DS_BINARY
#undef DS_TERNARY

template <>
inline constexpr bool kExact<NegExpr> = true;
template <>
inline constexpr bool kExact<AbsExpr> = true;
template <>
inline constexpr bool kExact<ReluExpr> = true;

template <class Expr>
LaneFns MakeLaneFns() {
  LaneFns fns;
  const auto of = [&](DType lane) -> LaneFn& { return fns.fn[static_cast<size_t>(lane)]; };
  fns.arity = Expr::kArity;
  fns.target = route_target(HWY_TARGET);
  fns.truth = Expr::kTruth;
  if constexpr (Expr::kKernels & F) {
    of(DType::kFloat32) = RunFloat<Expr, float>;
    of(DType::kFloat64) = RunFloat<Expr, double>;
    fns.bfloat16 = RunSmall<Expr, BFloat16>;
    fns.half = RunSmall<Expr, Half>;
  }
  if constexpr (Expr::kKernels & I) {
    of(DType::kInt32) = RunInt<Expr, int32_t>;
    of(DType::kInt64) = RunInt<Expr, int64_t>;
    of(DType::kInt16) = RunInt<Expr, int16_t>;
    of(DType::kInt8) = RunInt<Expr, int8_t>;
    of(DType::kUInt8) = RunInt<Expr, uint8_t>;
  }
  return fns;
}

void FillLaneTable(LaneTable& table) {
#define DS_UNARY(S, ...) table[static_cast<size_t>(Pointwise::k##S)] = MakeLaneFns<S##Expr>();
#define DS_BINARY DS_UNARY
#define DS_TERNARY DS_UNARY
  DS_BINARY(Add)
  DS_BINARY(Sub)
#include "kernels/pointwise/pointwise.def"
#undef DS_UNARY
#undef DS_BINARY
#undef DS_TERNARY
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(FillLaneTable);

namespace {

constexpr int kMaxOperands = 4;
constexpr int64_t kBlock = 1024;
constexpr int64_t kGrain = 16 * 1024;

const LaneTable& lane_table() {
  static const LaneTable table = [] {
    LaneTable t;
    HWY_DYNAMIC_DISPATCH(FillLaneTable)(t);
    return t;
  }();
  return table;
}

const LaneFns& lane_fns(Pointwise op) { return lane_table()[static_cast<size_t>(op)]; }

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

// `count` lanes of one value.
void spread(const FlatInput& value, DType lane, int64_t count, char* to) {
  cast_function(value.dtype, lane)(to, 1, value.data, 0, 1);
  dispatch(lane, [&]<class T>() {
    T* const lanes = reinterpret_cast<T*>(to);
    std::fill_n(lanes + 1, count - 1, *lanes);
  });
}

void flat_blocks(LaneFn fn, DType lane, char* out, std::span<const FlatInput> inputs, bool stream, int64_t begin,
                 int64_t end) {
  alignas(64) char spread_values[kMaxOperands - 1][kBlock * 8];
  const int64_t item = size_of(lane);
  const void* in[kMaxOperands - 1];
  for (size_t k = 0; k < inputs.size(); ++k)
    if (inputs[k].constant) spread(inputs[k], lane, std::min(kBlock, end - begin), spread_values[k]);
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
#endif  // HWY_ONCE
