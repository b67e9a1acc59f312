#include "kernels/optim/step.h"

#include "base/check.h"

namespace deepseek::kernels {

void check_step(const char* name, DType dtype, DType state_dtype, bool masters) {
  DS_CHECK_AS(TypeError, is_floating(dtype) && !is_float8(dtype), name,
              ": parameters must be float32, float64, bfloat16 or float16, got ", dtype);
  DS_CHECK_AS(TypeError, state_dtype == dtype || (is_reduced_float(dtype) && state_dtype == DType::kFloat32), name,
              ": state of ", state_dtype, " for parameters of ", dtype,
              "; it must be the same, or float32 beside 16-bit ones");
  DS_CHECK_AS(TypeError, !masters || (is_reduced_float(dtype) && state_dtype == DType::kFloat32), name,
              ": a float32 master belongs to bfloat16 or float16 parameters with float32 state, got ", dtype, " with ",
              state_dtype, " state");
}

}  // namespace deepseek::kernels
