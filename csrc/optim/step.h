// What the ops of optimizers share. Each steps on all parameters of a call in one pass: its inputs are lists as long as
// each other, then 0-d numbers that may change from step to step,
//   params, grads, a list for each state, masters[, steps], lr, grad_scale
// and its schema says what of that is written to: all but the gradients and the numbers. Memory that is not dense goes
// through a copy.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "core/op.h"
#include "kernels/optim/step.h"

namespace deepseek::optim {

struct StepForm {
  const char* name;                   // in messages
  std::array<const char*, 3> states;  // what each list of states is called in messages; null: there is no such list
  size_t required;                    // so many of them must be there, the others may be lists of None
  bool counted = false;               // "steps" is there: how many steps each parameter has taken, with this one
};

using StepKernel = std::function<void(std::span<const kernels::StepTensors> tensors, DType dtype, DType state_dtype,
                                      double lr, double grad_scale)>;

// infer and eval of such an op.
NoResults check_step(const StepForm& form, Inputs in);
void run_step(const StepForm& form, Inputs in, const StepKernel& kernel);

// The inputs of such an op.
TensorList step_inputs(std::span<const TensorList> lists, double lr, double grad_scale = 1);

// What kernels work on is dense memory. A tensor that is something else is read and written through a copy.
class DenseMemory {
 public:
  void* read(const Tensor& t, DType dtype);
  void* read(const Tensor& t) { return read(t, t.dtype()); }
  void* read_and_write(const Tensor& t);
  void write_back() const;

 private:
  struct Copy {
    Tensor original, dense;
  };
  std::vector<Tensor> read_;
  std::vector<Copy> written_;
};

}  // namespace deepseek::optim
