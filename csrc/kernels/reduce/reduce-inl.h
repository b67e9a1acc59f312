// The reduction tree of reduce_plan.h for one Highway target: a contiguous chunk, a panel of columns, and the walk over
// a plan.

#if defined(DEEPSEEK_KERNELS_REDUCE_REDUCE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_REDUCE_REDUCE_INL_H_
#undef DEEPSEEK_KERNELS_REDUCE_REDUCE_INL_H_
#else
#define DEEPSEEK_KERNELS_REDUCE_REDUCE_INL_H_
#endif

#include <limits>

#include "hwy/highway.h"
#include "kernels/loops/lines.h"
#include "kernels/loops/rows.h"
#include "kernels/reduce/reduce_plan.h"
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
  if constexpr (std::is_same_v<C, uint8_t>) return false;  // asks whether elements are 0
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

inline constexpr int64_t kTileBytes = 2048;  // width of a tile of columns
template <class C>
inline constexpr int64_t kTile = kTileBytes / sizeof(C);

inline constexpr int64_t kRowsPerLane = 4;  // rows a lane takes while its accumulator is in a register

// Adds up to kLanes * kRowsPerLane rows of `width` columns, row r to accumulator r % kLanes; `fresh` accumulators are
// overwritten.
template <class Op, class C, class S>
HWY_INLINE void AddRows(const Op& op, const S* const* rows, int64_t nrows, int64_t width, const C* params, bool fresh,
                        C* HWY_RESTRICT acc) {
  const Tag<C> d;
  for (int64_t lane = 0; lane < std::min(nrows, kLanes<C>); ++lane) {
    C* HWY_RESTRICT to = acc + lane * kTile<C>;
    auto add = [&](auto part, int64_t c) HWY_ATTR {
      const auto q = params ? part.load(params + c) : hn::Zero(d);
      auto sum = op.Map(d, part.load(rows[lane] + c), q);
      if (!fresh) sum = op.Combine(d, hn::Load(d, to + c), sum);
      for (int64_t r = lane + kLanes<C>; r < nrows; r += kLanes<C>)
        sum = op.Combine(d, sum, op.Map(d, part.load(rows[r] + c), q));
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

// Calls f(r, offset) for the n elements of a line from `begin` on.
template <class F>
HWY_INLINE void ForElements(const ReducePlan& plan, int64_t begin, int64_t n, const F& f) {
  int64_t run = 0, offset = 0;
  for (int64_t r = 0; r < n; ++r, --run) {
    offset = run > 0 ? offset + plan.red_in.back() : plan.reduced_offset(begin + r, &run);
    f(r, offset);
  }
}

// The panels of ReduceColumns where neighbouring columns of S are neighbours in memory.
template <class S, class Op, class C>
void AddPanels(const ReducePlan& plan, const Op& op, int64_t at, int64_t begin, int64_t n, int64_t width,
               const C* params, C* acc) {
  constexpr int64_t kPanel = kLanes<C> * kRowsPerLane;
  const S* rows[kPanel];
  for (int64_t i = 0; i < n; i += kPanel) {
    const int64_t nrows = std::min(kPanel, n - i);
    ForElements(plan, begin + i, nrows, [&](int64_t r, int64_t offset) { rows[r] = plan.in.as<S>() + at + offset; });
    AddRows(op, rows, nrows, width, params, i == 0, acc);
  }
}

// Reduces elements [begin, begin + n) of `width` neighbouring columns; the result is row 0 of acc. `converted` holds
// kLanes rows.
template <class Op, class C>
void ReduceColumns(const ReducePlan& plan, const Op& op, int64_t at, int64_t begin, int64_t n, int64_t width,
                   const C* params, C* acc, C* converted) {
  const int64_t stride = plan.kept_in.back();
  const bool in_place = stride == 1 && WhereLoadable<C>(plan.in.dtype, [&]<class S>() HWY_ATTR {
                          AddPanels<S>(plan, op, at, begin, n, width, params, acc);
                          return true;
                        });
  if (!in_place) {
    const C* rows[kLanes<C>];
    for (int64_t r = 0; r < kLanes<C>; ++r) rows[r] = converted + r * kTile<C>;
    for (int64_t i = 0; i < n; i += kLanes<C>) {
      const int64_t nrows = std::min(kLanes<C>, n - i);
      ForElements(plan, begin + i, nrows, [&](int64_t r, int64_t offset) {
        load_row(plan.in.dtype, plan.in.at(at + offset), stride, width, converted + r * kTile<C>);
      });
      AddRows(op, rows, nrows, width, params, i == 0, acc);
    }
  }
  FoldRows(op, std::min(n, kLanes<C>), width, acc);
}

// ---- rows: one output at a time ----

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

// Elements [begin, begin + n) of one output: read in place where they lie contiguous, else converted into `buffer`.
template <class Op, class C>
C ReduceLine(const ReducePlan& plan, const Op& op, int64_t at, int64_t begin, int64_t n, C param, C* buffer) {
  int64_t run, offset = plan.reduced_offset(begin, &run);
  const int64_t stride = plan.inner_reduced_stride();
  const bool contiguous = run >= n && (stride == 1 || n == 1);
  if constexpr (std::is_same_v<C, int64_t> && std::is_same_v<Op, SumOp>)
    if (contiguous && (plan.in.dtype == DType::kBool || plan.in.dtype == DType::kUInt8))
      return SumBytes(reinterpret_cast<const uint8_t*>(plan.in.at(at + offset)), n);
  C result;
  const auto in_place = [&]<class S>() HWY_ATTR {
    result = ReduceChunk(op, plan.in.as<S>() + at + offset, n, param);
    return true;
  };
  if (contiguous && WhereLoadable<C>(plan.in.dtype, in_place)) return result;
  for (int64_t i = 0;;) {
    const int64_t count = std::min(run, n - i);
    load_row(plan.in.dtype, plan.in.at(at + offset), stride, count, buffer + i);
    i += count;
    if (i == n) return ReduceChunk(op, buffer, n, param);
    offset = plan.reduced_offset(begin + i, &run);
  }
}

// ---- the walk ----

template <class Op, class C>
void RunRows(const ReducePlan& plan, const Op& op, const C* params, int64_t chunks, C* partials) {
  DS_COUNT_ROUTE(ReduceRows);
  parallel_for(plan.outputs * chunks, grain_for(std::min(plan.length, kChunk<C>) * size_of(plan.in.dtype)),
               [&](int64_t begin, int64_t end) {
                 alignas(64) C buffer[kChunk<C>];
                 for (int64_t item = begin; item < end; ++item) {
                   const int64_t o = chunks == 1 ? item : item / chunks, first = (item - o * chunks) * kChunk<C>;
                   const int64_t n = std::min(kChunk<C>, plan.length - first);
                   partials[item] = ReduceLine(plan, op, plan.kept_offset(o, plan.kept_in), first, n,
                                               params ? params[o] : C(0), buffer);
                 }
               });
}

// Partials of one output lie `inner` apart here: [outer][chunk][inner].
template <class Op, class C>
void RunColumns(const ReducePlan& plan, const Op& op, const C* params, int64_t chunks, C* partials) {
  DS_COUNT_ROUTE(ReduceColumns);
  const int64_t inner = plan.kept_sizes.back(), tiles = (inner + kTile<C> - 1) / kTile<C>;
  const int64_t items = plan.outputs / inner * tiles * chunks;
  const int64_t bytes = std::min(plan.length, kChunk<C>) * std::min(inner, kTile<C>) * sizeof(C);
  parallel_for(items, grain_for(bytes), [&](int64_t begin, int64_t end) {
    Buffer acc(kLanes<C> * kTileBytes), converted(kLanes<C> * kTileBytes);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t tile = item % tiles * kTile<C>, chunk = item / tiles % chunks, outer = item / tiles / chunks;
      const int64_t width = std::min(kTile<C>, inner - tile), first = chunk * kChunk<C>;
      const int64_t o = outer * inner + tile;
      ReduceColumns(plan, op, plan.kept_offset(o, plan.kept_in), first, std::min(kChunk<C>, plan.length - first), width,
                    params ? params + o : nullptr, acc.as<C>(), converted.as<C>());
      std::copy_n(acc.as<C>(), width, partials + (outer * chunks + chunk) * inner + tile);
    }
  });
}

// results[o] = reduction of output o (plan order), with params[o] handed to Map when params is not null.
template <class C, class Op>
void Run(const ReducePlan& plan, const Op& op, const C* params, C* results) {
  if (plan.outputs == 0) return;
  if (plan.length == 0) {  // adding 0 turns a sum's neutral -0.0 into 0.0
    std::fill_n(results, plan.outputs, static_cast<C>(Op::template identity<C>() + C(0)));
    return;
  }
  const int64_t chunks = (plan.length + kChunk<C> - 1) / kChunk<C>;
  Scratch<C> storage(chunks > 1 ? plan.outputs * chunks : 0);
  C* partials = chunks > 1 ? storage.data() : results;
  const int64_t inner = plan.columns ? plan.kept_sizes.back() : 1;
  if (plan.columns)
    RunColumns(plan, op, params, chunks, partials);
  else
    RunRows(plan, op, params, chunks, partials);
  if (chunks == 1) return;
  parallel_for(plan.outputs, grain_for(chunks * sizeof(C)), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      C* first = partials + o / inner * chunks * inner + o % inner;
      MergePartials<Op>(first, chunks, inner);
      results[o] = *first;
    }
  });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
