// deepseek._C
#include "kernels/simd/build_info.h"
#include "python/bind/bind.h"
#include "runtime/cpu.h"

PYBIND11_MODULE(_C, module) {
  using namespace deepseek::python;
  module.doc() = "The C++ core of deepseek.";
  if (const std::string reason = deepseek::unsupported_cpu_reason(); !reason.empty())
    throw pybind11::import_error(reason);
  deepseek::kernels::cap_simd_targets(deepseek::isa_name());
  PyObject* m = module.ptr();
  try {
    guard_bound_types();  // first: what is bound inherits from them
    bind_exceptions(m);
    bind_dtypes(m);
    bind_tensor(m);
    bind_subclass(m);
    bind_runtime(m);
    bind_ops(m);
    bind_functions(m);
    bind_autograd(m);
    bind_autocast(m);
    bind_io(m);
    bind_jit(m);
    guard_bound_functions(m);  // last: it looks at what is there
  } catch (const PythonError&) {
    throw pybind11::error_already_set();
  }
}
