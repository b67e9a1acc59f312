// Ops on all gradients of a step: what is not finite in them, their scale, their norm.
#include "kernels/optim/gradients.h"

#include <vector>

#include "core/dispatch/recorder.h"
#include "optim/step.h"

namespace deepseek::optim {
namespace {

// The gradients that are there, as kernels take them.
struct Gradients {
  explicit Gradients(Inputs gradients, bool written = false) {
    refs.reserve(gradients.size());
    for (const Tensor& g : gradients)
      if (g.defined()) refs.push_back({written ? memory.read_and_write(g) : memory.read(g), g.numel(), g.dtype()});
  }
  DenseMemory memory;
  std::vector<kernels::TensorRef> refs;
};

constexpr std::array<Meta, 2> counts() { return {Meta{DType::kInt64, {}}, Meta{DType::kInt64, {}}}; }
void put_counts(const kernels::NonFinite& found, std::span<Tensor> out) {
  out[0].data<int64_t>()[0] = found.infinite;
  out[1].data<int64_t>()[0] = found.nan;
}

struct Unscale {
  static constexpr OpInfo info{
      .schema = "_unscale(Tensor(a!)?[] gradients, Tensor|Number factor) -> (Tensor infinite, Tensor nan)",
      .doc = "Multiplies all gradients in one pass, and counts what in them was infinite or NaN before.",
      .differentiable = false};
  bool operator==(const Unscale&) const = default;
  std::array<Meta, 2> infer(Inputs in) const {
    for (size_t i = 0; i + 1 < in.size(); ++i)
      DS_CHECK(!in[i].defined() || !in[i].storage()->read_only(), "unscale: the memory of gradient ", i,
               " is read-only (it came from a read-only array); use a clone() of it");
    DS_CHECK(in.back().defined() && in.back().numel() == 1, "unscale: the factor must be one number");
    return counts();
  }
  void eval(Inputs in, std::span<Tensor> out) const {
    const RecorderPause reading;  // of the factor, on every replay
    const Gradients gradients(in.first(in.size() - 1), true);
    put_counts(kernels::unscale(gradients.refs, in.back().item<double>()), out);
    gradients.memory.write_back();
  }
};
DS_OP(Unscale);

struct CountNonfinite {
  static constexpr OpInfo info{.schema = "_count_nonfinite(Tensor?[] gradients) -> (Tensor infinite, Tensor nan)",
                               .doc = "How many elements of all gradients are infinite, and how many NaN.",
                               .differentiable = false};
  bool operator==(const CountNonfinite&) const = default;
  std::array<Meta, 2> infer(Inputs) const { return counts(); }
  void eval(Inputs in, std::span<Tensor> out) const { put_counts(kernels::unscale(Gradients(in).refs, 1), out); }
};
DS_OP(CountNonfinite);

struct SumSquares {
  static constexpr OpInfo info{.schema = "_sum_squares(Tensor[] tensors) -> Tensor",
                               .doc = "Sum of squares over all tensors, in float64.",
                               .differentiable = false};
  bool operator==(const SumSquares&) const = default;
  Meta infer(Inputs) const { return {DType::kFloat64, {}}; }
  void eval(Inputs in, Tensor& out) const {
    const Gradients tensors(in);
    std::vector<double> sums(tensors.refs.size());
    kernels::sum_squares(tensors.refs, sums.data());
    double& total = out.data<double>()[0] = 0;
    for (const double s : sums) total += s;
  }
};
DS_OP(SumSquares);

}  // namespace
}  // namespace deepseek::optim
