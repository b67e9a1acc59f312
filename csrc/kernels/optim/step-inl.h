// The loop of a fused optimizer step: what a new one has to say is what it does to one vector of a parameter.
#include "kernels/optim/concatenation.h"
#include "kernels/optim/step.h"

#if defined(DEEPSEEK_KERNELS_OPTIM_STEP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_KERNELS_OPTIM_STEP_INL_H_
#undef DEEPSEEK_KERNELS_OPTIM_STEP_INL_H_
#else
#define DEEPSEEK_KERNELS_OPTIM_STEP_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/simd/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls f(i, count) for whole vectors, then once for the rest with count < N.
template <class D, class F>
HWY_INLINE void vectors(D d, int64_t n, F&& f) {
  const int64_t lanes = hn::Lanes(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) f(i, lanes);
  if (i < n) f(i, n - i);
}

// Loads and stores that stop after `count` elements: the rest of a tensor goes through a padded copy.
template <class D, class S>
HWY_INLINE hn::Vec<D> load_part(D d, const S* p, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) return load_as(d, p);
  S padded[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
  for (int64_t j = 0; j < count; ++j) padded[j] = p[j];
  return load_as(d, padded);
}
template <class D, class S>
HWY_INLINE void store_part(D d, hn::Vec<D> v, S* p, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) return store_as(d, v, p);
  S padded[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)];
  store_as(d, v, padded);
  for (int64_t j = 0; j < count; ++j) p[j] = padded[j];
}

// Elements [begin, end) of one tensor. P: its dtype; S: its states'; it is stepped on its master where it has one.
template <class P, class S, bool kMaster>
class StepRange {
 public:
  using C = ComputeType<P>;
  using D = hn::ScalableTag<C>;
  using V = hn::Vec<D>;

  StepRange(const StepTensors& t, int64_t begin, int64_t end) : t_(t), begin_(begin), end_(end) {}

  static HWY_INLINE V set(double x) { return hn::Set(D(), static_cast<C>(x)); }
  // Null for a state that this kind of step does without.
  S* state(int k) const { return t_.states[k] ? static_cast<S*>(t_.states[k]) + begin_ : nullptr; }

  // f(p, g, i, n) returns the new p of elements [i, i + n), and loads and stores what it needs of the states there.
  template <class F>
  HWY_INLINE void run(F&& f) const {
    const D d;
    P* const param = static_cast<P*>(t_.param) + begin_;
    const P* const grad = static_cast<const P*>(t_.grad) + begin_;
    float* const master = kMaster ? t_.master + begin_ : nullptr;
    vectors(d, end_ - begin_, [&](int64_t i, int64_t n) HWY_ATTR {
      V p;
      if constexpr (kMaster)
        p = load_part(d, master + i, n);
      else
        p = load_part(d, param + i, n);
      p = f(p, load_part(d, grad + i, n), i, n);
      if constexpr (kMaster) store_part(d, p, master + i, n);
      store_part(d, p, param + i, n);
    });
  }

 private:
  const StepTensors& t_;
  int64_t begin_, end_;
};

// f(range) with the StepRange of the tensor's dtypes.
template <class F>
void with_step_range(const StepTensors& t, DType dtype, DType state, int64_t begin, int64_t end, F&& f) {
  dispatch_float("optimizer step", dtype, [&]<class P>() {
    if constexpr (is_small_float<P>) {
      if (t.master) return f(StepRange<P, float, true>(t, begin, end));
      if (state == DType::kFloat32) return f(StepRange<P, float, false>(t, begin, end));
    }
    f(StepRange<P, P, false>(t, begin, end));
  });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per target

#if HWY_ONCE
namespace deepseek::kernels {

// Checks a step's dtypes, and runs range(tensor, begin, end) over all parameters.
template <class F>
void run_step(const char* name, std::span<const StepTensors> tensors, DType dtype, DType state_dtype, F&& range) {
  check_step(name, dtype, state_dtype, false);
  for (const StepTensors& t : tensors) check_step(name, dtype, state_dtype, t.master);
  over_concatenation(tensors, 3 * size_of(dtype) + 4 * size_of(state_dtype),
                     [&](size_t i, int64_t begin, int64_t end) { range(tensors[i], begin, end); });
}

}  // namespace deepseek::kernels
#endif  // HWY_ONCE
