#include "kernels/build_info.h"

#include <cblas.h>
#include <hwy/base.h>
#include <hwy/targets.h>
#if DEEPSEEK_DNNL
#include <dnnl.h>
#endif

#include "kernels/matmul.h"

namespace deepseek::kernels {

std::string openblas_info() { return std::string(openblas_get_config()) + (openblas_get_parallel() == 2 ? " (OpenMP)" : " (not OpenMP)"); }

std::string onednn_info() {
#if DEEPSEEK_DNNL
  const dnnl_version_t* v = dnnl_version();
  return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
#else
  return "off";
#endif
}

std::string highway_info() {
  std::string s = std::to_string(HWY_MAJOR) + "." + std::to_string(HWY_MINOR) + "." + std::to_string(HWY_PATCH) + ", targets";
  for (int64_t bits = hwy::SupportedTargets() & (HWY_AVX2 | HWY_AVX3); bits != 0; bits &= bits - 1)
    s += std::string(" ") + hwy::TargetName(bits & (~bits + 1));
  return s;
}

std::string gemm_route(DType dtype) { return matmul_route(dtype); }

}  // namespace deepseek::kernels
