// deepseek._C
#include "kernels/simd/build_info.h"
#include "python/python.h"
#include "runtime/cpu.h"

PYBIND11_MODULE(_C, m) {
  using namespace deepseek::python;
  m.doc() = "The C++ core of deepseek.";
  if (const std::string reason = deepseek::unsupported_cpu_reason(); !reason.empty())
    throw pybind11::import_error(reason);
  deepseek::kernels::cap_simd_targets(deepseek::isa_name());
  guard_bound_types();  // first: what is bound inherits from them
  bind_dtypes(m);
  bind_tensor(m);
  bind_subclass(m);
  bind_runtime(m);
  bind_ops(m);
  bind_convert(m);
  bind_autograd(m);
  bind_autocast(m);
  bind_io(m);
  bind_jit(m);
  guard_bound_functions(m);  // last: it looks at what is there
}
