#include "kernels/attention/attention.h"

#include "kernels/attention/attention_packed.h"
#include "kernels/attention/int8/attention_int8.h"
#include "kernels/simd/routes.h"
#include "runtime/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention.cc"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/attention/attention_products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepseek::kernels::HWY_NAMESPACE {

void CountRoute(bool bf16_dot) {
  DotsBf16(bf16_dot) ? count_route(Route::kAttentionBf16Dot) : DS_COUNT_ROUTE(AttentionFloat);
}

void AttentionForward(const Attention& a, const View& out, const View& lse, const View& lse_low, bool bf16_dot) {
  CountRoute(bf16_dot);
  ForOperands(a.q.dtype, bf16_dot, [&]<class M>() { ForwardAs<FloatProducts<M>>(a, out, {lse, lse_low}); });
}
void AttentionForwardTasks(std::span<const AttentionTask> tasks, bool bf16_dot) {
  CountRoute(bf16_dot);
  ForOperands(tasks[0].a.q.dtype, bf16_dot, [&]<class M>() { ForwardTasks<FloatProducts<M>>(tasks); });
}

}  // namespace deepseek::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(AttentionForward);
HWY_EXPORT(AttentionForwardTasks);

void attention_forward(const Attention& a, const View& out, const View& lse, const View& lse_low) {
  if (a.q.numel() == 0 && out.numel() == 0) return;
  if (a.k.dtype == DType::kInt8) return attention_int8_forward(a, out, lse);
  HWY_DYNAMIC_DISPATCH(AttentionForward)(a, out, lse, lse_low, uses_bf16_dot(a.q.dtype));
}
void attention_forward(std::span<const AttentionTask> tasks) {
  if (tasks.empty()) return;
  HWY_DYNAMIC_DISPATCH(AttentionForwardTasks)(tasks, uses_bf16_dot(tasks[0].a.q.dtype));
}

}  // namespace deepseek::kernels
#endif
