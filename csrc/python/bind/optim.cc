// Fused optimizer steps over lists of parameters.
#include "optim/step.h"
#include "python/bind/bind.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;

Tensor at(const py::list& list, size_t i) { return list[i].cast<Tensor>(); }
// A list that the kind of step does without is empty.
Tensor at_or_none(const py::list& list, size_t i) { return list.empty() ? Tensor() : at(list, i); }

void adamw_step(const py::list& params, const py::list& grads, const py::list& exp_avgs, const py::list& exp_avg_sqs,
                const py::list& max_exp_avg_sqs, const py::list& masters, double lr, double beta1, double beta2,
                double eps, double weight_decay, int64_t step, bool decoupled, bool maximize, double grad_scale) {
  std::vector<optim::AdamParameter> parameters;
  parameters.reserve(params.size());
  for (size_t i = 0; i < params.size(); ++i)
    parameters.push_back({at(params, i), at(grads, i), at(exp_avgs, i), at(exp_avg_sqs, i),
                          at_or_none(max_exp_avg_sqs, i), at_or_none(masters, i), step});
  optim::adam_step(parameters, {.lr = lr,
                                .beta1 = beta1,
                                .beta2 = beta2,
                                .eps = eps,
                                .weight_decay = weight_decay,
                                .decoupled = decoupled,
                                .amsgrad = !max_exp_avg_sqs.empty(),
                                .maximize = maximize,
                                .grad_scale = grad_scale});
}

void sgd_step(const py::list& params, const py::list& grads, const py::list& momentum_bufs, const py::list& masters,
              double lr, double momentum, double dampening, double weight_decay, bool nesterov, bool first_step,
              bool maximize, double grad_scale) {
  std::vector<optim::SgdParameter> parameters;
  parameters.reserve(params.size());
  for (size_t i = 0; i < params.size(); ++i)
    parameters.push_back(
        {at(params, i), at(grads, i), at_or_none(momentum_bufs, i), first_step, at_or_none(masters, i)});
  optim::sgd_step(parameters, {.lr = lr,
                               .momentum = momentum,
                               .dampening = dampening,
                               .weight_decay = weight_decay,
                               .nesterov = nesterov,
                               .maximize = maximize,
                               .grad_scale = grad_scale});
}

py::tuple unscale(const py::list& gradients, double factor) {
  std::vector<Tensor> tensors;
  tensors.reserve(gradients.size());
  for (const py::handle h : gradients) tensors.push_back(h.cast<Tensor>());
  const kernels::NonFinite found = optim::unscale(tensors, factor);
  return py::make_tuple(found.infinite, found.nan);
}

Tensor total_sum_squares(const py::list& tensors) {
  std::vector<kernels::TensorRef> refs;
  std::vector<Tensor> keep;
  keep.reserve(tensors.size());
  for (const py::handle h : tensors) {
    const auto t = h.cast<Tensor>();
    const Tensor& dense = keep.emplace_back(t.is_contiguous() ? t : contiguous(detach(t)));
    refs.push_back({dense.data_ptr(), dense.numel(), dense.dtype()});
  }
  std::vector<double> sums(refs.size());
  {
    const py::gil_scoped_release unlocked;
    kernels::sum_squares(refs, sums.data());
  }
  double total = 0;
  for (const double s : sums) total += s;
  return full({}, total, DType::kFloat64);
}

}  // namespace

void bind_optim(PyObject* module) {
  auto m = py::reinterpret_borrow<py::module_>(module);
  m.def("_adamw_step", adamw_step, py::arg("params"), py::arg("grads"), py::arg("exp_avgs"), py::arg("exp_avg_sqs"),
        py::arg("max_exp_avg_sqs"), py::arg("masters"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"),
        py::arg("eps"), py::arg("weight_decay"), py::arg("step"), py::arg("decoupled"), py::arg("maximize"),
        py::arg("grad_scale") = 1.0, "One Adam (decoupled: AdamW) step over all parameters.");
  m.def("_sgd_step", sgd_step, py::arg("params"), py::arg("grads"), py::arg("momentum_bufs"), py::arg("masters"),
        py::arg("lr"), py::arg("momentum"), py::arg("dampening"), py::arg("weight_decay"), py::arg("nesterov"),
        py::arg("first_step"), py::arg("maximize"), py::arg("grad_scale") = 1.0, "One SGD step over all parameters.");
  m.def("_unscale", unscale, py::arg("gradients"), py::arg("factor"),
        "Multiplies all gradients in place, and returns how many elements were infinite and how many NaN.");
  m.def("_sum_squares", total_sum_squares, py::arg("tensors"), "Sum of squares over all tensors, 0-d float64.");
}

}  // namespace deepseek::python
