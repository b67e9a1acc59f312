#include "kernels/build_info.h"

#include <hwy/targets.h>

namespace deepseek::kernels {

std::string simd_targets() {
  std::string s;
  for (int64_t bits = hwy::SupportedTargets() & (HWY_AVX2 | HWY_AVX3); bits != 0; bits &= bits - 1)
    s += std::string(s.empty() ? "" : " ") + hwy::TargetName(bits & (~bits + 1));
  return s;
}

void cap_simd_targets(const std::string& isa) {
  if (isa == "avx2") hwy::DisableTargets(HWY_AVX3);
}

}  // namespace deepseek::kernels
