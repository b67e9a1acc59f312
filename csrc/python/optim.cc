// Fused optimizer steps over lists of parameters.
#include "kernels/optim.h"

#include "python/python.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;

Tensor entry(const py::list& list, size_t i, const char* what, const Tensor& like) {
  const auto t = list[i].cast<Tensor>();
  DS_CHECK_AS(TypeError, t.defined(), what, " ", i, " is None");
  DS_CHECK(t.sizes() == like.sizes(), what, " ", i, " has shape ", t.sizes(), ", its parameter ", like.sizes());
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

Tensor gradient(const py::list& grads, size_t i, const Tensor& p) {
  const Tensor g = entry(grads, i, "gradient", p);
  return g.dtype() == p.dtype() ? g : to_dtype(g, p.dtype());
}

struct Group {
  DType dtype, state_dtype;
  std::vector<size_t> members;
};

// Parameters of one dtype go through one kernel call.
std::vector<Group> by_dtype(const py::list& params, const py::list& states) {
  std::vector<Group> groups;
  for (size_t i = 0; i < params.size(); ++i) {
    const auto p = params[i].cast<Tensor>();
    const DType d = p.dtype();
    DS_CHECK(!p.storage()->read_only(), "optimizer: the memory of parameter ", i,
             " is read-only (it came from a read-only array); optimize a clone() of it");
    DS_CHECK(is_floating(d) && !is_float8(d), "optimizer: parameter ", i, " has dtype ", name_of(d),
             "; only floating point parameters can be optimized");
    const DType s = states.size() > 0 ? states[i].cast<Tensor>().dtype() : d;
    auto found =
        std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.dtype == d && g.state_dtype == s; });
    if (found == groups.end()) found = groups.insert(groups.end(), {d, s, {}});
    found->members.push_back(i);
  }
  return groups;
}

void adamw_step(const py::list& params, const py::list& grads, const py::list& exp_avgs, const py::list& exp_avg_sqs,
                const py::list& max_exp_avg_sqs, const py::list& masters, double lr, double beta1, double beta2,
                double eps, double weight_decay, int64_t step, bool decoupled, bool maximize) {
  const bool amsgrad = max_exp_avg_sqs.size() > 0;
  const kernels::AdamArgs args{.lr = lr,
                               .beta1 = beta1,
                               .beta2 = beta2,
                               .eps = eps,
                               .weight_decay = weight_decay,
                               .decoupled = decoupled,
                               .amsgrad = amsgrad,
                               .maximize = maximize};
  for (const Group& group : by_dtype(params, exp_avgs)) {
    std::vector<kernels::AdamTensors> work;
    std::vector<Dense> keep, written;
    written.reserve(5 * group.members.size());
    keep.reserve(group.members.size());
    for (const size_t i : group.members) {
      const auto p = params[i].cast<Tensor>();
      keep.emplace_back(gradient(grads, i, p));
      const auto state = [&](const py::list& list, const char* what) {
        return written.emplace_back(entry(list, i, what, p)).memory.data_ptr();
      };
      void* param = written.emplace_back(p).memory.data_ptr();
      void* avg = state(exp_avgs, "exp_avg");
      void* avg_sq = state(exp_avg_sqs, "exp_avg_sq");
      work.push_back({param, keep.back().memory.data_ptr(), avg, avg_sq,
                      amsgrad ? state(max_exp_avg_sqs, "max_exp_avg_sq") : nullptr, p.numel(), step});
      if (masters.size() == 0 || masters[i].is_none()) continue;
      const DType master = entry(masters, i, "master", p).dtype();
      DS_CHECK_AS(TypeError, master == DType::kFloat32, "master ", i, " must be float32, got ", name_of(master));
      work.back().master = static_cast<float*>(state(masters, "master"));
    }
    {
      const py::gil_scoped_release unlocked;
      kernels::adam_step(work, group.dtype, group.state_dtype, args);
    }
    for (const Dense& d : written) d.write_back();
  }
}

void sgd_step(const py::list& params, const py::list& grads, const py::list& momentum_bufs, double lr, double momentum,
              double dampening, double weight_decay, bool nesterov, bool first_step, bool maximize) {
  const kernels::SgdArgs args{.lr = lr,
                              .momentum = momentum,
                              .dampening = dampening,
                              .weight_decay = weight_decay,
                              .nesterov = nesterov,
                              .maximize = maximize};
  const bool has_momentum = momentum_bufs.size() > 0;
  for (const Group& group : by_dtype(params, momentum_bufs)) {
    std::vector<kernels::SgdTensors> work;
    std::vector<Dense> keep, written;
    written.reserve(2 * group.members.size());
    keep.reserve(group.members.size());
    for (const size_t i : group.members) {
      const auto p = params[i].cast<Tensor>();
      keep.emplace_back(gradient(grads, i, p));
      void* param = written.emplace_back(p).memory.data_ptr();
      void* buffer = has_momentum
                         ? written.emplace_back(entry(momentum_bufs, i, "momentum buffer", p)).memory.data_ptr()
                         : nullptr;
      work.push_back({param, keep.back().memory.data_ptr(), buffer, p.numel(), first_step});
    }
    {
      const py::gil_scoped_release unlocked;
      kernels::sgd_step(work, group.dtype, args);
    }
    for (const Dense& d : written) d.write_back();
  }
}

Tensor total_sum_squares(const py::list& tensors) {
  std::vector<kernels::TensorRef> refs;
  std::vector<Dense> keep;
  keep.reserve(tensors.size());
  for (const py::handle h : tensors) {
    const Tensor& t = keep.emplace_back(h.cast<Tensor>()).memory;
    refs.push_back({t.data_ptr(), t.numel(), t.dtype()});
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

void bind_optim(py::module_& m) {
  m.def("_adamw_step", adamw_step, py::arg("params"), py::arg("grads"), py::arg("exp_avgs"), py::arg("exp_avg_sqs"),
        py::arg("max_exp_avg_sqs"), py::arg("masters"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"),
        py::arg("eps"), py::arg("weight_decay"), py::arg("step"), py::arg("decoupled"), py::arg("maximize"),
        "One Adam (decoupled: AdamW) step over all parameters.");
  m.def("_sgd_step", sgd_step, py::arg("params"), py::arg("grads"), py::arg("momentum_bufs"), py::arg("lr"),
        py::arg("momentum"), py::arg("dampening"), py::arg("weight_decay"), py::arg("nesterov"), py::arg("first_step"),
        py::arg("maximize"), "One SGD step over all parameters.");
  m.def("_sum_squares", total_sum_squares, py::arg("tensors"), "Sum of squares over all tensors, 0-d float64.");
}

}  // namespace deepseek::python
