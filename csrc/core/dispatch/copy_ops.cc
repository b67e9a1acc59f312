#include "core/dispatch/copy_ops.h"

#include "kernels/loops/copy.h"

namespace deepseek {

void Clone::eval(Inputs in, Tensor& out) const { kernels::copy(out.view(), in[0].view()); }
void ToDtype::eval(Inputs in, Tensor& out) const { kernels::copy(out.view(), in[0].view()); }
void AutocastLower::eval(Inputs in, Tensor& out) const { kernels::copy(out.view(), in[0].view()); }
DS_OP(Clone);
DS_OP(ToDtype);
DS_OP(AutocastLower);

}  // namespace deepseek
