// The reduction tree of reduce_plan.h for one Highway target: a contiguous chunk and a panel of columns.

#if defined(DEEPSEEK_KERNELS_REDUCE_REDUCE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_REDUCE_REDUCE_INL_H_
#undef DEEPSEEK_KERNELS_REDUCE_REDUCE_INL_H_
#else
#define DEEPSEEK_KERNELS_REDUCE_REDUCE_INL_H_
#endif

#include <limits>

#include "hwy/highway.h"
#include "kernels/loops/lines.h"
#include "kernels/reduce/reduce_walk.h"
#include "kernels/simd/routes.h"
#include "kernels/simd/row_parts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class C>
using Tag = hn::ScalableTag<C>;
template <class C>
using Vector = hn::Vec<Tag<C>>;
template <class C>
inline constexpr int kVector = static_cast<int>(sizeof(Vector<C>) / sizeof(C));

// An operation has an identity, Map (applied to every element; `p` is the parameter of its output) and Combine. join()
// is Combine on two scalars.
struct NoMap {
  template <class D, class V>
  HWY_INLINE V Map(D, V v, V) const {
    return v;
  }
};

template <class Base>
struct WithSum : Base {
  using Base::Base;
  // -0.0, not 0.0, is the neutral element of IEEE addition.
  template <class C>
  static constexpr C identity() {
    return C(-0.0);
  }
  template <class D, class V>
  HWY_INLINE V Combine(D, V a, V b) const {
    return hn::Add(a, b);
  }
  template <class C>
  static C join(C a, C b) {
    if constexpr (std::is_same_v<C, int64_t>)
      return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    else
      return a + b;
  }
};

struct ProdOp : NoMap {
  template <class C>
  static constexpr C identity() {
    return C(1);
  }
  template <class D, class V>
  HWY_INLINE V Combine(D, V a, V b) const {
    return hn::Mul(a, b);
  }
  template <class C>
  static C join(C a, C b) {
    if constexpr (std::is_same_v<C, int64_t>)
      return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    else
      return a * b;
  }
};

template <class C>
constexpr C LowestOf() {
  return std::is_floating_point_v<C> ? -std::numeric_limits<C>::infinity() : std::numeric_limits<C>::lowest();
}
template <class C>
constexpr C HighestOf() {
  return std::is_floating_point_v<C> ? std::numeric_limits<C>::infinity() : std::numeric_limits<C>::max();
}

// x86 min and max return the second operand when either is NaN, so only a NaN in `a` needs care.
template <class Base, bool kMax>
struct WithExtreme : Base {
  template <class C>
  static constexpr C identity() {
    return kMax ? LowestOf<C>() : HighestOf<C>();
  }
  template <class D, class V>
  HWY_INLINE V Combine(D, V a, V b) const {
    V best;
    if constexpr (kMax)
      best = hn::Max(a, b);
    else
      best = hn::Min(a, b);
    if constexpr (hwy::IsFloat<hn::TFromD<D>>())
      return hn::IfThenElse(hn::IsNaN(a), a, best);
    else
      return best;
  }
  template <class C>
  static C join(C a, C b) {
    if (a != a) return a;
    return (kMax ? a > b : a < b) ? a : b;
  }
};

using SumOp = WithSum<NoMap>;
using MaxOp = WithExtreme<NoMap, true>;
using MinOp = WithExtreme<NoMap, false>;

// Folds the lanes of one vector by halves: lane l takes lane l + n/2 until one is left.
template <class Op, class D, class V>
HWY_INLINE hn::TFromD<D> FoldVector(const Op& op, D d, V v) {
  using C = hn::TFromD<D>;
  if constexpr (sizeof(V) > 16) {
    const hn::Half<D> half;
    return FoldVector(op, half, op.Combine(half, hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else if constexpr (sizeof(C) == 8) {
    return hn::GetLane(op.Combine(d, v, hn::Shuffle01(v)));
  } else if constexpr (sizeof(C) == 4) {
    v = op.Combine(d, v, hn::Shuffle1032(v));
    return hn::GetLane(op.Combine(d, v, hn::Shuffle2301(v)));
  } else {
    alignas(16) C lanes[16 / sizeof(C)];
    hn::Store(v, d, lanes);
    for (size_t h = 8 / sizeof(C); h > 0; h /= 2)
      for (size_t l = 0; l < h; ++l) lanes[l] = Op::join(lanes[l], lanes[l + h]);
    return lanes[0];
  }
}

// One vector's worth of a row of C, or of a 16-bit float where C is float: all of it, or its first lanes. Masked lanes
// load as 0 and are never stored.
template <class C>
struct WholeVector {
  template <class S>
  HWY_INLINE Vector<C> load(const S* p) const {
    return load_as(Tag<C>(), p);
  }
  template <class S>
  HWY_INLINE void store(Vector<C> v, S* p) const {
    store_as(Tag<C>(), v, p);
  }
};

template <class C>
struct PartVector {
  int64_t count;
  hn::Mask<Tag<C>> mask;
  explicit PartVector(int64_t lanes) : count(lanes), mask(hn::FirstN(Tag<C>(), static_cast<size_t>(lanes))) {}
  template <class S>
  HWY_INLINE Vector<C> load(const S* p) const {
    if constexpr (std::is_same_v<S, C> && sizeof(C) >= 4)  // AVX2 has no masked load of less and would read on
      return hn::MaskedLoad(mask, Tag<C>(), p);
    else
      return load_part(Tag<C>(), p, count);
  }
  template <class S>
  HWY_INLINE void store(Vector<C> v, S* p) const {
    static_assert(sizeof(C) >= 4);
    if constexpr (std::is_same_v<S, C>)
      hn::BlendedStore(v, mask, Tag<C>(), p);
    else
      store_part(Tag<C>(), v, p, count);
  }
};

// What f<S>() returns where vectors of C load elements of type `dtype`, S, as they lie; false where they do not.
template <class C, class F>
HWY_INLINE bool WhereLoadable(DType dtype, const F& f) {
  if (dtype == dtype_of<C>) return f.template operator()<C>();
  if constexpr (std::is_same_v<C, float>) {
    if (dtype == DType::kBFloat16) return f.template operator()<BFloat16>();
    if (dtype == DType::kFloat16) return f.template operator()<Half>();
  }
  return false;
}

// Reduces n <= kChunk<C> elements; load(part, i) gives the mapped vector of elements i, i + 1 ...
template <class C, class Op, class Load>
HWY_INLINE C ReduceLoaded(const Op& op, int64_t n, const Load& load) {
  const Tag<C> d;
  constexpr int kVecs = static_cast<int>(kLanes<C>) / kVector<C>;
  const auto identity = hn::Set(d, Op::template identity<C>());
  Vector<C> acc[kVecs];
  for (int k = 0; k < kVecs; ++k) acc[k] = identity;
  int64_t i = 0;
  for (; i + kLanes<C> <= n; i += kLanes<C>)
    for (int k = 0; k < kVecs; ++k) acc[k] = op.Combine(d, acc[k], load(WholeVector<C>(), i + k * kVector<C>));
  for (int k = 0; k < kVecs && i < n; ++k, i += kVector<C>) {
    const PartVector<C> part(std::min<int64_t>(n - i, kVector<C>));
    acc[k] = op.Combine(d, acc[k], hn::IfThenElse(part.mask, load(part, i), identity));
  }
  for (int h = kVecs / 2; h > 0; h /= 2)
    for (int k = 0; k < h; ++k) acc[k] = op.Combine(d, acc[k], acc[k + h]);
  return FoldVector(op, d, acc[0]);
}

// Reduces n <= kChunk<C> contiguous elements.
template <class Op, class C, class S>
HWY_INLINE C ReduceChunk(const Op& op, const S* HWY_RESTRICT p, int64_t n, C param) {
  const Tag<C> d;
  const auto q = hn::Set(d, param);
  return ReduceLoaded<C>(op, n, [&](auto part, int64_t i) HWY_ATTR { return op.Map(d, part.load(p + i), q); });
}

// Pairwise tree over n partials that lie `stride` apart; leaves the result in p[0].
template <class Op, class C>
void MergePartials(C* p, int64_t n, int64_t stride) {
  for (int64_t step = 1; step < n; step *= 2)
    for (int64_t i = 0; i + step < n; i += 2 * step) p[i * stride] = Op::join(p[i * stride], p[(i + step) * stride]);
}

// Any number of elements on this thread, by the same tree: chunk(first, n) reduces one chunk.
template <class Op, class C, class Chunk>
HWY_INLINE C ReduceChunks(int64_t n, const Chunk& chunk) {
  if (n <= kChunk<C>) return chunk(int64_t{0}, n);
  const int64_t chunks = (n + kChunk<C> - 1) / kChunk<C>;
  Scratch<C> partials(chunks);
  for (int64_t c = 0; c < chunks; ++c) partials[c] = chunk(c * kChunk<C>, std::min(kChunk<C>, n - c * kChunk<C>));
  MergePartials<Op>(partials.data(), chunks, 1);
  return partials[0];
}

template <class C, class Op, class S>
HWY_INLINE C ReduceContiguous(const Op& op, const S* p, int64_t n, C param = C(0)) {
  return ReduceChunks<Op, C>(
      n, [&](int64_t first, int64_t count) HWY_ATTR { return ReduceChunk(op, p + first, count, param); });
}

// Sum of load(part, i) over i < n.
template <class C, class Load>
HWY_INLINE C SumLoaded(int64_t n, const Load& load) {
  return ReduceChunks<SumOp, C>(n, [&](int64_t first, int64_t count) HWY_ATTR {
    return ReduceLoaded<C>(SumOp(), count, [&](auto part, int64_t i) HWY_ATTR { return load(part, first + i); });
  });
}

// ---- columns: outputs side by side in memory, one vector lane each ----

// Adds up to kLanes * kRowsPerLane rows of `width` columns, row r to accumulator r % kLanes; `fresh` accumulators are
// overwritten.
template <class S, class Op, class C>
void AddRowsOf(const Op& op, const void* const* rows, int64_t nrows, int64_t width, const C* params, bool fresh,
               C* HWY_RESTRICT acc) {
  const Tag<C> d;
  for (int64_t lane = 0; lane < std::min(nrows, kLanes<C>); ++lane) {
    const auto row = [&](int64_t r) { return static_cast<const S*>(rows[r]); };
    C* HWY_RESTRICT to = acc + lane * kTile<C>;
    auto add = [&](auto part, int64_t c) HWY_ATTR {
      const auto q = params ? part.load(params + c) : hn::Zero(d);
      auto sum = op.Map(d, part.load(row(lane) + c), q);
      if (!fresh) sum = op.Combine(d, hn::Load(d, to + c), sum);
      for (int64_t r = lane + kLanes<C>; r < nrows; r += kLanes<C>)
        sum = op.Combine(d, sum, op.Map(d, part.load(row(r) + c), q));
      hn::Store(sum, d, to + c);  // whole vectors: accumulator rows are padded
    };
    int64_t c = 0;
    for (; c + kVector<C> <= width; c += kVector<C>) add(WholeVector<C>(), c);
    if (c < width) add(PartVector<C>(width - c), c);
  }
}

// Folds accumulator rows by halves into row 0; rows from `used` on are identities.
template <class Op, class C>
HWY_INLINE void FoldRows(const Op& op, int64_t used, int64_t width, C* acc) {
  const Tag<C> d;
  for (int64_t h = kLanes<C> / 2; h > 0; h /= 2)
    for (int64_t l = 0; l < h && l + h < used; ++l)
      for (int64_t c = 0; c < width; c += kVector<C>) {
        C* to = acc + l * kTile<C> + c;
        hn::Store(op.Combine(d, hn::Load(d, to), hn::Load(d, to + h * kTile<C>)), d, to);
      }
}

// Of n bytes.
HWY_INLINE int64_t SumBytes(const uint8_t* p, int64_t n) {
  const hn::ScalableTag<uint8_t> d8;
  const hn::ScalableTag<uint64_t> d64;
  constexpr auto kBytes = static_cast<int64_t>(hn::MaxLanes(d8));
  auto sums = hn::Zero(d64);
  int64_t i = 0;
  for (; i + kBytes <= n; i += kBytes) sums = hn::Add(sums, hn::SumsOf8(hn::LoadU(d8, p + i)));
  auto total = static_cast<int64_t>(hn::GetLane(hn::SumOfLanes(d64, sums)));
  for (; i < n; ++i) total += p[i];
  return total;
}

// ---- the walk's functions ----

template <class Op, class C>
C ReduceDense(const void* op, DType dtype, const void* p, int64_t n, C param) {
  if constexpr (std::is_same_v<C, int64_t> && std::is_same_v<Op, SumOp>)
    if (size_of(dtype) == 1) return SumBytes(static_cast<const uint8_t*>(p), n);
  C result{};
  WhereLoadable<C>(dtype, [&]<class S>() HWY_ATTR {
    result = ReduceChunk(*static_cast<const Op*>(op), static_cast<const S*>(p), n, param);
    return true;
  });
  return result;
}

template <class Op, class C>
void AddRows(const void* op, DType dtype, const void* const* rows, int64_t nrows, int64_t width, const C* params,
             bool fresh, C* acc) {
  WhereLoadable<C>(dtype, [&]<class S>() HWY_ATTR {
    AddRowsOf<S>(*static_cast<const Op*>(op), rows, nrows, width, params, fresh, acc);
    return true;
  });
}

template <class Op, class C>
void FoldAddedRows(const void* op, int64_t used, int64_t width, C* acc) {
  FoldRows(*static_cast<const Op*>(op), used, width, acc);
}

template <class Op, class C>
constexpr ReduceFns<C> FnsOf() {
  ReduceFns<C> fns;
  fns.identity = Op::template identity<C>();
  fns.dense = ReduceDense<Op, C>;
  fns.add_rows = AddRows<Op, C>;
  fns.fold_rows = FoldAddedRows<Op, C>;
  fns.merge = MergePartials<Op, C>;
  fns.bytes = std::is_same_v<C, int64_t> && std::is_same_v<Op, SumOp>;
  return fns;
}

// results[o] = reduction of output o (plan order), with params[o] handed to Map when params is not null.
template <class C, class Op>
void Run(const ReducePlan& plan, const Op& op, const C* params, C* results) {
  static constexpr ReduceFns<C> fns = FnsOf<Op, C>();
  if (plan.outputs > 0 && plan.length > 0) plan.columns ? DS_COUNT_ROUTE(ReduceColumns) : DS_COUNT_ROUTE(ReduceRows);
  reduce_walk(plan, fns, &op, params, results);
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
