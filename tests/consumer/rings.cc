// Learns to tell two rings apart with a small network: what a C++ program with the installed library looks like.
#include <deepseek/deepseek.h>

#include <cmath>
#include <iostream>
#include <vector>

namespace ds = deepseek;

namespace {

struct Linear {
  Linear(int64_t in, int64_t out)
      : weight(ds::set_requires_grad(ds::randn({out, in}) * std::sqrt(2.0 / static_cast<double>(in)))),
        bias(ds::set_requires_grad(ds::zeros({out}))) {}
  ds::Tensor operator()(const ds::Tensor& x) const { return ds::linear(x, weight, bias); }

  ds::Tensor weight, bias;
};

struct Network {
  ds::Tensor operator()(const ds::Tensor& x) const { return last(ds::relu(first(x))); }
  std::vector<ds::Tensor> parameters() const { return {first.weight, first.bias, last.weight, last.bias}; }

  Linear first{2, 32}, last{32, 2};
};

}  // namespace

int main() {
  ds::manual_seed(0);
  const int64_t n = 400;
  const ds::Tensor labels =
      ds::to_dtype(ds::ge(ds::arange(n), n / 2), ds::DType::kInt64);  // [n]: inner ring 0, outer 1
  const ds::Tensor angle = ds::rand({n}) * (2 * M_PI);
  const ds::Tensor radius = labels + 1 + 0.15 * ds::randn({n});
  const ds::Tensor points = ds::stack({radius * ds::cos(angle), radius * ds::sin(angle)}, 1);  // [n, 2]

  const Network network;
  ds::optim::AdamW optimizer(network.parameters(), {.lr = 1e-2});
  float first = 0, loss_now = 0;
  for (int step = 0; step <= 300; ++step) {
    const ds::Tensor loss = ds::cross_entropy(network(points), labels);
    optimizer.zero_grad();
    ds::backward(loss);
    optimizer.step();
    loss_now = loss.item<float>();
    if (step == 0) first = loss_now;
    if (step % 100 == 0) std::cout << "step " << step << ": loss " << loss_now << "\n";
  }

  const ds::GradGuard no_grad(false);
  const ds::Tensor right = ds::eq(ds::argmax(network(points), 1), labels);
  const auto accuracy = ds::mean(ds::to_dtype(right, ds::DType::kFloat32)).item<float>();
  std::cout << "deepseek " << ds::kVersion << ": " << 100 * accuracy << " % right\n"
            << "probabilities of the first three: " << ds::softmax(network(ds::narrow(points, 0, 0, 3)), 1) << "\n";
  const auto [surest, where] = ds::topk(ds::amax(ds::softmax(network(points), 1), {1}), 3);
  std::cout << "surest about points " << where << "\n";
  return accuracy > 0.98F && loss_now < 0.2F * first ? 0 : 1;
}
