// Doubly stochastic matrices by rounds of Sinkhorn and Knopp, as hyper-connections mix their streams (DeepSeek, 2026).
// Second derivatives go through the composite.
#include "kernels/nn/sinkhorn.h"

#include "ops/composite.h"
#include "ops/operands.h"

namespace deepseek {
namespace {

void check_sinkhorn(const Tensor& x, int64_t rounds, double eps) {
  DS_CHECK_AS(NotImplementedError, x.dtype() == DType::kFloat32 || x.dtype() == DType::kFloat64,
              "sinkhorn: not implemented for ", name_of(x.dtype()), "; convert to float32");
  DS_CHECK(x.dim() >= 2 && x.size(-1) == x.size(-2), "sinkhorn: input must be matrices [..., n, n], got ", x.sizes());
  DS_CHECK(rounds >= 1 && rounds <= 1000000, "sinkhorn: rounds must be from 1 to 1000000, got ", rounds);
  DS_CHECK(eps >= 0 && eps < 1, "sinkhorn: eps must be from 0 to below 1, got ", eps);
}

View matrices(const Tensor& t) {
  const int64_t n = t.size(-1);
  return {t.data_ptr(), t.dtype(), {t.numel() / (n * n), n, n}, {n * n, n, 1}};
}

}  // namespace

struct SinkhornBackward {
  int64_t rounds;
  double eps;
  static constexpr OpInfo info{
      .schema = "_sinkhorn_backward(Tensor grad, Tensor input, int rounds, float eps) -> Tensor",
      .doc = "Gradient of _sinkhorn.",
      .shown = Shown::kHidden};
  bool operator==(const SinkhornBackward&) const = default;
  Meta infer(Inputs in) const {
    check_sinkhorn(in[1], rounds, eps);
    DS_CHECK(in[0].sizes() == in[1].sizes(), "_sinkhorn_backward: the gradient's shape ", in[0].sizes(),
             " differs from the input's ", in[1].sizes());
    return in[1].meta();
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    const DType t = in[1].dtype();
    const Tensor g = dense(in[0], t), x = dense(in[1], t);
    kernels::sinkhorn_backward(matrices(g), matrices(x), rounds, eps, matrices(out));
  }
  Tensor composite(Inputs in) const;
  Grads vjp(const Vjp& c) const { return vjp_by_composite(*this, c); }
};
DS_OP(SinkhornBackward);

struct Sinkhorn {
  int64_t rounds;
  double eps;
  static constexpr OpInfo info{.schema = "_sinkhorn(Tensor input, int rounds, float eps) -> Tensor",
                               .doc =
                                   "softmax(input [..., n, n]) + eps with columns and rows divided by their sum + eps "
                                   "in turn, columns first and "
                                   "last: rounds times columns, rounds - 1 times rows.",
                               .saves = Saves::kInputs,
                               .shown = Shown::kHidden};
  bool operator==(const Sinkhorn&) const = default;
  Meta infer(Inputs in) const {
    check_sinkhorn(in[0], rounds, eps);
    return in[0].meta();
  }
  void eval(Inputs in, Tensor& out) const {
    if (out.numel() == 0) return;
    const Tensor x = dense(in[0], in[0].dtype());
    kernels::sinkhorn(matrices(x), rounds, eps, matrices(out));
  }
  Grads vjp(const Vjp& c) const { return {apply(SinkhornBackward{rounds, eps}, c.grad[0], c.in[0])}; }
  Tensor composite(Inputs in) const {
    Tensor w = softmax(in[0], -1) + eps;
    for (int64_t step = 0; step < 2 * rounds - 1; ++step) w = w / (sum(w, Dims{step % 2 == 0 ? -2 : -1}, true) + eps);
    return w;
  }
};
DS_OP(Sinkhorn);

Tensor SinkhornBackward::composite(Inputs in) const {
  const Sinkhorn forward{rounds, eps};
  const Grads g = vjp_by_composite(forward, Vjp{in.subspan(1, 1), {}, in.first(1), 0b1});
  return g[0].defined() ? g[0] : zeros_like(in[1]);
}

}  // namespace deepseek
