#include "core/dispatch/promotion.h"

#include <algorithm>

#include "core/mode.h"

namespace deepseek {

DType result_type(Inputs in) {
  const auto same = [&](const Tensor& t) {
    return t.defined() && t.dtype() == in[0].dtype() && !t.cell()->wrapped_number;
  };
  if (std::all_of(in.begin(), in.end(), same)) return in.empty() ? DType::kBool : in[0].dtype();
  DType by_strength[3];
  bool seen[3] = {};
  for (const Tensor& t : in) {
    if (!t.defined()) continue;
    const int strength = t.cell()->wrapped_number ? 2 : t.dim() == 0 ? 1 : 0;
    DType d = t.dtype();
    if (strength == 2 && d == DType::kFloat64) d = default_dtype();
    by_strength[strength] = seen[strength] ? promote_types(by_strength[strength], d) : d;
    seen[strength] = true;
  }
  // A weaker group matters only when its category is higher.
  bool have = false;
  DType result = DType::kBool;
  for (int s = 0; s < 3; ++s) {
    if (!seen[s]) continue;
    if (!have)
      result = by_strength[s];
    else if (category(by_strength[s]) > category(result))
      result = promote_types(result, by_strength[s]);
    have = true;
  }
  return result;
}

Dims broadcast_sizes(const char* op, const Dims& a, const Dims& b) {
  if (a == b) return a;
  const Dims& longer = a.size() >= b.size() ? a : b;
  const Dims& shorter = a.size() >= b.size() ? b : a;
  Dims out = longer;
  const int lead = longer.size() - shorter.size();
  for (int i = 0; i < shorter.size(); ++i) {
    int64_t& o = out[i + lead];
    const int64_t s = shorter[i];
    if (o == s || s == 1) continue;
    DS_CHECK(o == 1, op, "(): The size of tensor a (", a[a.size() - (longer.size() - i - lead)],
             ") must match the size of tensor b (", b[b.size() - (longer.size() - i - lead)],
             ") at non-singleton dimension ", i + lead, "; got shapes ", a, " and ", b);
    o = s;
  }
  return out;
}

}  // namespace deepseek
