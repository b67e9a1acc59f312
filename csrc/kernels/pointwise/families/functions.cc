// The loops of functions.def.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pointwise/families/functions.cc"
#define DS_FAMILY "kernels/pointwise/families/functions.def"
#include "hwy/foreach_target.h"
// after foreach_target.h
#include "kernels/pointwise/lanes-inl.h"

#if HWY_ONCE
namespace deepseek::kernels {
HWY_EXPORT(FillLanes);

void fill_functions(LaneFns* table) { HWY_DYNAMIC_DISPATCH(FillLanes)(table); }
}  // namespace deepseek::kernels
#endif
