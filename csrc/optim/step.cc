#include "optim/step.h"

#include <algorithm>
#include <vector>

#include "core/lock_release.h"
#include "ops/ops.h"

namespace deepseek::optim {
namespace {

const Tensor& like_parameter(const Tensor& t, size_t i, const char* what, const Tensor& parameter) {
  DS_CHECK_AS(TypeError, t.defined(), what, " ", i, " is None");
  DS_CHECK(t.sizes() == parameter.sizes(), what, " ", i, " has shape ", t.sizes(), ", its parameter ",
           parameter.sizes());
  return t;
}

// Kernels want dense memory. A parameter that is not contiguous is updated through a copy.
struct Dense {
  explicit Dense(const Tensor& t) : original(t), memory(t.is_contiguous() ? t : contiguous(detach(t))) {}
  void write_back() const {
    if (!same_geometry(original, memory) && original.data_ptr() != memory.data_ptr()) copy_(detach(original), memory);
    original.storage()->bump_version();
  }
  Tensor original, memory;
};

struct Group {
  DType dtype, state_dtype;
  std::vector<size_t> members;
  int64_t bytes = 0;
};

// Parameters of one dtype, and of one dtype of state, go through one kernel call.
template <class P, class F>
std::vector<Group> by_dtype(std::span<const P> parameters, F&& state_dtype) {
  std::vector<Group> groups;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& p = parameters[i].param;
    DS_CHECK_AS(TypeError, p.defined(), "optimizer: parameter ", i, " is None");
    const DType d = p.dtype();
    DS_CHECK(!p.storage()->read_only(), "optimizer: the memory of parameter ", i,
             " is read-only (it came from a read-only array); optimize a clone() of it");
    DS_CHECK(is_floating(d) && !is_float8(d), "optimizer: parameter ", i, " has dtype ", name_of(d),
             "; only floating point parameters can be optimized");
    const DType s = state_dtype(parameters[i]);
    auto found =
        std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.dtype == d && g.state_dtype == s; });
    if (found == groups.end()) found = groups.insert(groups.end(), {d, s, {}});
    found->members.push_back(i);
    found->bytes += p.nbytes();
  }
  return groups;
}

// The tensors of one kernel call: what is read and what is written, as dense memory that lives as long as this.
class Operands {
 public:
  Operands(size_t members, size_t written_each) {
    read_.reserve(members);
    written_.reserve(members * written_each);
  }
  const void* gradient(const Tensor& g, size_t i, const Tensor& p) {
    like_parameter(g, i, "gradient", p);
    return read_.emplace_back(g.dtype() == p.dtype() ? g : to_dtype(g, p.dtype())).memory.data_ptr();
  }
  void* written(const Tensor& t) { return written_.emplace_back(t).memory.data_ptr(); }
  // The kernels know one dtype of state for all parameters of a call.
  void* state(const Tensor& t, size_t i, const char* what, const Tensor& p, DType dtype) {
    like_parameter(t, i, what, p);
    DS_CHECK_AS(TypeError, t.dtype() == dtype, what, " ", i, " must be ", name_of(dtype), ", got ", name_of(t.dtype()));
    return written(t);
  }
  void write_back() const {
    for (const Dense& d : written_) d.write_back();
  }

 private:
  std::vector<Dense> read_, written_;
};

}  // namespace

void adam_step(std::span<const AdamParameter> parameters, const kernels::AdamArgs& args) {
  const auto state_dtype = [](const AdamParameter& a) { return (a.exp_avg.defined() ? a.exp_avg : a.param).dtype(); };
  for (const Group& group : by_dtype(parameters, state_dtype)) {
    std::vector<kernels::AdamTensors> work;
    work.reserve(group.members.size());
    Operands operands(group.members.size(), 5);
    for (const size_t i : group.members) {
      const AdamParameter& a = parameters[i];
      const Tensor& p = a.param;
      const void* grad = operands.gradient(a.grad, i, p);
      void* param = operands.written(p);
      const auto state = [&](const Tensor& t, const char* what) {
        return operands.state(t, i, what, p, group.state_dtype);
      };
      void* avg = state(a.exp_avg, "exp_avg");
      void* avg_sq = state(a.exp_avg_sq, "exp_avg_sq");
      void* largest = args.amsgrad ? state(a.max_exp_avg_sq, "max_exp_avg_sq") : nullptr;
      float* master = nullptr;
      if (a.master.defined()) master = static_cast<float*>(operands.state(a.master, i, "master", p, DType::kFloat32));
      work.push_back({param, grad, avg, avg_sq, largest, p.numel(), a.step, master});
    }
    {
      const LockRelease unlocked(group.bytes >= kReleaseLockBytes);
      kernels::adam_step(work, group.dtype, group.state_dtype, args);
    }
    operands.write_back();
  }
}

void sgd_step(std::span<const SgdParameter> parameters, const kernels::SgdArgs& args) {
  const auto state_dtype = [](const SgdParameter& s) { return (s.master.defined() ? s.master : s.param).dtype(); };
  for (const Group& group : by_dtype(parameters, state_dtype)) {
    std::vector<kernels::SgdTensors> work;
    work.reserve(group.members.size());
    Operands operands(group.members.size(), 3);
    for (const size_t i : group.members) {
      const SgdParameter& s = parameters[i];
      const Tensor& p = s.param;
      const void* grad = operands.gradient(s.grad, i, p);
      void* param = operands.written(p);
      void* momentum =
          args.momentum != 0 ? operands.state(s.momentum, i, "momentum buffer", p, group.state_dtype) : nullptr;
      float* master = nullptr;
      if (s.master.defined()) master = static_cast<float*>(operands.state(s.master, i, "master", p, DType::kFloat32));
      work.push_back({param, grad, momentum, p.numel(), s.first, master});
    }
    {
      const LockRelease unlocked(group.bytes >= kReleaseLockBytes);
      kernels::sgd_step(work, group.dtype, args);
    }
    operands.write_back();
  }
}

kernels::NonFinite unscale(Inputs gradients, double factor) {
  std::vector<Dense> dense;
  std::vector<kernels::TensorRef> work;
  dense.reserve(gradients.size());
  int64_t bytes = 0;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Tensor& g = gradients[i];
    if (!g.defined()) continue;
    DS_CHECK(!g.storage()->read_only(), "unscale: the memory of gradient ", i,
             " is read-only (it came from a read-only array); use a clone() of it");
    const Tensor& memory = dense.emplace_back(g).memory;
    work.push_back({memory.data_ptr(), memory.numel(), memory.dtype()});
    bytes += memory.nbytes();
  }
  kernels::NonFinite found;
  {
    const LockRelease unlocked(bytes >= kReleaseLockBytes);
    found = kernels::unscale(work, factor);
  }
  if (factor != 1)
    for (const Dense& d : dense) d.write_back();
  return found;
}

}  // namespace deepseek::optim
