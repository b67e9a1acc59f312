#include "kernels/reduce/reduce.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce/reduce.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/reduce/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

// One result over dense elements of C that make one chunk: the tree is a single leaf.
template <class C>
bool IsOneChunk(const View& out, const View& in) {
  const int64_t n = in.numel();
  return in.dtype == dtype_of<C> && out.dtype == dtype_of<C> && n > 0 && n <= kChunk<C> && out.numel() == 1 &&
         in.contiguous();
}

template <class C, class Op>
void ReduceAs(const View& out, const View& in, const Op& op) {
  if constexpr (!std::is_same_v<C, uint8_t>) {
    if (IsOneChunk<C>(out, in)) {
      DS_COUNT_ROUTE(ReduceOneChunk);
      *out.as<C>() = ReduceDense<Op>(&op, dtype_of<C>, in.data, in.numel(), C(0));
      return;
    }
  }
  const ReducePlan plan(out, in);
  Scratch<C> results(plan.outputs);
  Run<C>(plan, op, nullptr, results.data());
  store_results(plan, results.data());
}

// The type a sum into `t` is kept in.
template <class Op>
void ReduceNumeric(const View& out, const View& in, DType t, const Op& op) {
  dispatch_sum("reduce", t, [&]<class C>() { ReduceAs<C>(out, in, op); });
}

// Unsigned bytes in the order of signed ones.
struct FlipSign {
  template <class D, class V>
  HWY_INLINE V Map(D d, V v, V) const {
    return hn::Xor(v, hn::Set(d, std::numeric_limits<int8_t>::min()));
  }
};

template <bool kMax>
void ReduceUnsigned(const View& out, const View& in) {
  View signed_out = out, signed_in = in;
  signed_out.dtype = signed_in.dtype = DType::kInt8;
  const ReducePlan plan(signed_out, signed_in);
  Scratch<int8_t> results(plan.outputs);
  Run<int8_t>(plan, WithExtreme<FlipSign, kMax>(), nullptr, results.data());
  for (int64_t o = 0; o < plan.outputs; ++o) results[o] ^= std::numeric_limits<int8_t>::min();
  store_results(plan, results.data());
}

template <bool kMax>
void ReduceExtreme(const View& out, const View& in) {
  const WithExtreme<NoMap, kMax> op;
  switch (out.dtype == in.dtype ? in.dtype : DType::kInt64) {
    case DType::kInt32:
      return ReduceAs<int32_t>(out, in, op);
    case DType::kInt16:
      return ReduceAs<int16_t>(out, in, op);
    case DType::kInt8:
      return ReduceAs<int8_t>(out, in, op);
    case DType::kUInt8:
    case DType::kBool:
      return ReduceUnsigned<kMax>(out, in);
    case DType::kInt64:
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
      return ReduceNumeric(out, in, in.dtype, op);
  }
}

void Reduce(ReduceOp op, const View& out, const View& in) {
  const bool extreme = op == ReduceOp::kMin || op == ReduceOp::kMax;
  DS_CHECK(!extreme || in.numel() > 0 || out.numel() == 0, "internal: min/max over no elements");
  switch (op) {
    case ReduceOp::kSum:
      return ReduceNumeric(out, in, out.dtype, SumOp());
    case ReduceOp::kProd:
      return ReduceNumeric(out, in, out.dtype, ProdOp());
    case ReduceOp::kMin:
      return ReduceExtreme<false>(out, in);
    case ReduceOp::kMax:
      return ReduceExtreme<true>(out, in);
    case ReduceOp::kAny:
      return ReduceAs<uint8_t>(out, in, MaxOp());
    case ReduceOp::kAll: {
      // The identity of min over uint8 is 255: an empty `all` is stored as true, and uint8 outputs want 1.
      if (in.numel() > 0) return ReduceAs<uint8_t>(out, in, MinOp());
      const ReducePlan plan(out, in);
      Scratch<uint8_t> ones(plan.outputs);
      std::fill_n(ones.data(), plan.outputs, uint8_t{1});
      return store_results(plan, ones.data());
    }
  }
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(Reduce);

void reduce(ReduceOp op, const View& out, const View& in) { HWY_DYNAMIC_DISPATCH(Reduce)(op, out, in); }
}  // namespace deepseek::kernels
#endif
