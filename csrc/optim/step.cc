#include "optim/step.h"

#include <algorithm>
#include <vector>

#include "core/dispatch/recorder.h"
#include "kernels/loops/copy.h"

namespace deepseek::optim {
namespace {

// The inputs of a step by name.
class StepInputs {
 public:
  StepInputs(const StepForm& form, Inputs in)
      : num_states_(form.states.size() - std::count(form.states.begin(), form.states.end(), nullptr)),
        num_lists_(3 + num_states_ + form.counted),
        in_(in),
        size_((in.size() - 2) / num_lists_) {}

  size_t size() const { return size_; }
  size_t num_states() const { return num_states_; }
  const Tensor& param(size_t i) const { return at(0, i); }
  const Tensor& grad(size_t i) const { return at(1, i); }
  const Tensor& state(size_t k, size_t i) const { return at(2 + k, i); }
  bool has_state(size_t k) const {
    for (size_t i = 0; i < size_; ++i)
      if (state(k, i).defined()) return true;
    return false;
  }
  const Tensor& master(size_t i) const { return at(2 + num_states_, i); }
  const Tensor& step(size_t i) const { return at(3 + num_states_, i); }
  const Tensor& lr() const { return in_[in_.size() - 2]; }
  const Tensor& grad_scale() const { return in_.back(); }

  // The kernels know one dtype of state for all parameters of a call.
  DType state_dtype(size_t i) const {
    const DType p = param(i).dtype();
    if (!is_reduced_float(p)) return p;
    const Tensor& first = num_states_ > 0 ? state(0, i) : master(i);
    return (first.defined()       ? first
            : master(i).defined() ? master(i)
                                  : param(i))
                       .dtype() == DType::kFloat32
               ? DType::kFloat32
               : p;
  }

 private:
  const Tensor& at(size_t list, size_t i) const { return in_[list * size_ + i]; }

  size_t num_states_, num_lists_;
  Inputs in_;
  size_t size_;
};

void check_like(const Tensor& t, size_t i, const char* what, const Tensor& parameter) {
  DS_CHECK_AS(TypeError, t.defined(), what, " ", i, " is None");
  DS_CHECK(t.sizes() == parameter.sizes(), what, " ", i, " has shape ", t.sizes(), ", its parameter ",
           parameter.sizes());
}

void check_state(const Tensor& t, size_t i, const char* what, const Tensor& parameter, DType dtype) {
  check_like(t, i, what, parameter);
  DS_CHECK_AS(TypeError, t.dtype() == dtype, what, " ", i, " must be ", name_of(dtype), ", got ", name_of(t.dtype()));
}

void check_number(const Tensor& t, const char* step, const char* what) {
  DS_CHECK(t.defined() && t.numel() == 1, step, ": ", what, " must be one number");
}

// Without telling a recorder: the kernel reads it on every replay.
double number(const Tensor& t) {
  const RecorderPause reading;
  return t.item<double>();
}

constexpr double kMostSteps = 9007199254740992;  // past it doubles leave numbers out

struct Group {
  DType dtype, state_dtype;
  std::vector<size_t> members;
};

// Parameters of one dtype, and of one dtype of state, go through one kernel call, which steps on them in any order: two
// that are the same memory go through two.
std::vector<Group> by_dtype(const StepInputs& inputs) {
  std::vector<Group> groups;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& p = inputs.param(i);
    const DType d = p.dtype(), s = inputs.state_dtype(i);
    const auto same_memory = [&](size_t other) {
      return inputs.param(other).storage() == p.storage() && inputs.param(other).offset() == p.offset();
    };
    auto found = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      return g.dtype == d && g.state_dtype == s &&
             (p.storage()->use_count() == 1 || std::ranges::none_of(g.members, same_memory));
    });
    if (found == groups.end()) found = groups.insert(groups.end(), {d, s, {}});
    found->members.push_back(i);
  }
  return groups;
}

}  // namespace

void* DenseMemory::read(const Tensor& t, DType dtype) {
  if (t.is_contiguous() && t.dtype() == dtype) return t.data_ptr();
  const Tensor& dense = read_.emplace_back(Tensor::empty(t.sizes(), dtype));
  kernels::copy(dense.view(), t.view());
  return dense.data_ptr();
}

void* DenseMemory::read_and_write(const Tensor& t) {
  if (t.is_contiguous()) return t.data_ptr();
  void* const dense = read(t);
  written_.push_back({t, read_.back()});
  return dense;
}

void DenseMemory::write_back() const {
  for (const Copy& c : written_) kernels::copy(c.original.view(), c.dense.view());
}

NoResults check_step(const StepForm& form, Inputs in) {
  const StepInputs inputs(form, in);
  std::array<bool, 3> given{};
  for (size_t k = 0; k < inputs.num_states(); ++k) given[k] = k < form.required || inputs.has_state(k);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& p = inputs.param(i);
    DS_CHECK_AS(TypeError, p.defined(), "optimizer: parameter ", i, " is None");
    DS_CHECK(!p.storage()->read_only(), "optimizer: the memory of parameter ", i,
             " is read-only (it came from a read-only array); optimize a clone() of it");
    DS_CHECK(is_floating(p.dtype()) && !is_float8(p.dtype()), "optimizer: parameter ", i, " has dtype ",
             name_of(p.dtype()), "; only floating point parameters can be optimized");
    check_like(inputs.grad(i), i, "gradient", p);
    const DType state_dtype = inputs.state_dtype(i);
    for (size_t k = 0; k < inputs.num_states(); ++k)
      if (given[k]) check_state(inputs.state(k, i), i, form.states[k], p, state_dtype);
    const bool has_master = inputs.master(i).defined();
    if (has_master) check_state(inputs.master(i), i, "master", p, DType::kFloat32);
    if (has_master || state_dtype != p.dtype()) kernels::check_step(form.name, p.dtype(), state_dtype, has_master);
    if (form.counted) check_number(inputs.step(i), form.name, "the step");
  }
  check_number(inputs.lr(), form.name, "lr");
  check_number(inputs.grad_scale(), form.name, "grad_scale");
  return {};
}

void run_step(const StepForm& form, Inputs in, const StepKernel& kernel) {
  const StepInputs inputs(form, in);
  const double lr = number(inputs.lr()), grad_scale = number(inputs.grad_scale());
  std::vector<int64_t> steps(form.counted ? inputs.size() : 0);  // all are read before anything is written
  for (size_t i = 0; i < steps.size(); ++i) {
    const double step = number(inputs.step(i));
    DS_CHECK(step >= 1 && step <= kMostSteps, form.name, ": the step of parameter ", i,
             " must be from 1 to 2**53, got ", step);
    steps[i] = static_cast<int64_t>(step);
  }
  for (const Group& group : by_dtype(inputs)) {
    std::vector<kernels::StepTensors> work;
    DenseMemory memory;
    work.reserve(group.members.size());
    const auto target = [&](const Tensor& t) { return t.defined() ? memory.read_and_write(t) : nullptr; };
    for (const size_t i : group.members) {
      const Tensor& p = inputs.param(i);
      kernels::StepTensors& t = work.emplace_back();
      t.param = target(p);
      t.grad = memory.read(inputs.grad(i), group.dtype);
      for (size_t k = 0; k < inputs.num_states(); ++k) t.states[k] = target(inputs.state(k, i));
      t.numel = p.numel();
      t.master = static_cast<float*>(target(inputs.master(i)));
      if (form.counted) t.step = steps[i];
    }
    kernel(work, group.dtype, group.state_dtype, lr, grad_scale);
    memory.write_back();
  }
}

TensorList step_inputs(std::span<const TensorList> lists, double lr, double grad_scale) {
  TensorList in;
  for (const TensorList& list : lists) in.append({list.data(), list.size()});
  in.push_back(Tensor::wrapped(lr));
  in.push_back(Tensor::wrapped(grad_scale));
  return in;
}

}  // namespace deepseek::optim
