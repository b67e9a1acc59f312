// What the numerical libraries in this build are, for `deepseek doctor`.
#pragma once

#include <string>

#include "base/dtype.h"

namespace deepseek::kernels {

std::string openblas_info();
std::string onednn_info();
std::string highway_info();
std::string gemm_route(DType dtype);

}  // namespace deepseek::kernels
