// Optimizer steps against double-precision references on every SIMD target.
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/optim/adam.h"
#include "kernels/optim/gradients.h"
#include "kernels/optim/sgd.h"
#include "runtime/parallel.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {

using namespace deepseek::testing;

template <class T>
constexpr double kTolerance = std::is_same_v<T, double>  ? 1e-12
                              : std::is_same_v<T, float> ? 3e-6
                              : std::is_same_v<T, Half>  ? 4e-3
                                                         : 3e-2;

// Sizes around vector lengths; several tensors in one call, one of them empty.
const std::vector<int64_t> kSizes = {1, 0, 7, 8, 17, 1000, 40001};

template <class P, class S>
void adam_case(const AdamArgs& args, bool amsgrad) {
  struct State {
    std::vector<P> param, grad;
    std::vector<S> m, v, largest;
    std::vector<double> rp, rm, rv, rl;
  };
  std::vector<State> states;
  for (int64_t n : kSizes) {
    State s{random_values<P>(n, 1), {}, std::vector<S>(n),      std::vector<S>(n),
            std::vector<S>(n),      {}, std::vector<double>(n), std::vector<double>(n),
            std::vector<double>(n)};
    s.rp.assign(s.param.begin(), s.param.end());
    states.push_back(std::move(s));
  }
  for (int step = 1; step <= 3; ++step) {
    std::vector<StepTensors> tensors;
    for (State& s : states) {
      const int64_t n = static_cast<int64_t>(s.param.size());
      s.grad = random_values<P>(n, 10 + step);
      tensors.push_back({.param = s.param.data(),
                         .grad = s.grad.data(),
                         .states = {s.m.data(), s.v.data(), amsgrad ? s.largest.data() : nullptr},
                         .numel = n,
                         .step = step});
      for (int64_t i = 0; i < n; ++i) {
        double g = double(s.grad[i]) * args.grad_scale * (args.maximize ? -1 : 1);
        if (args.decoupled)
          s.rp[i] *= 1 - args.lr * args.weight_decay;
        else
          g += args.weight_decay * s.rp[i];
        s.rm[i] = args.beta1 * s.rm[i] + (1 - args.beta1) * g;
        s.rv[i] = args.beta2 * s.rv[i] + (1 - args.beta2) * g * g;
        s.rl[i] = std::max(s.rl[i], s.rv[i]);
        const double root = std::sqrt(amsgrad ? s.rl[i] : s.rv[i]) / std::sqrt(1 - std::pow(args.beta2, step));
        s.rp[i] -= args.lr / (1 - std::pow(args.beta1, step)) * s.rm[i] / (root + args.eps);
      }
    }
    adam_step(tensors, dtype_of<P>, dtype_of<S>, args);
  }
  for (const State& s : states)
    for (size_t i = 0; i < s.param.size(); ++i)
      ASSERT_NEAR(double(s.param[i]), s.rp[i], kTolerance<P> * (1 + std::abs(s.rp[i])));
}

TEST(Adam, AllVariants) {
  for_each_target([] {
    for (int bits = 0; bits < 16; ++bits) {
      AdamArgs a{
          .lr = 0.01, .weight_decay = bits & 8 ? 0.1 : 0.0, .decoupled = bool(bits & 1), .maximize = bool(bits & 4)};
      const bool amsgrad = bits & 2;
      if (bits == 9) a.grad_scale = 0.5;
      adam_case<float, float>(a, amsgrad);
      adam_case<double, double>(a, amsgrad);
      adam_case<BFloat16, BFloat16>(a, amsgrad);
      adam_case<BFloat16, float>(a, amsgrad);
      adam_case<Half, float>(a, amsgrad);
    }
  });
}

// A 16-bit parameter with a master takes the steps of a float32 parameter, bit for bit, and is that one rounded.
template <class P>
void master_case(const AdamArgs& args, bool amsgrad) {
  for (int64_t n : kSizes) {
    std::vector<P> param = random_values<P>(n, 1);
    std::vector<float> wide(param.begin(), param.end()), master = wide, m(n), v(n), l(n), wm(n), wv(n), wl(n);
    for (int step = 1; step <= 3; ++step) {
      const auto grad = random_values<P>(n, 10 + step);
      const std::vector<float> wide_grad(grad.begin(), grad.end());
      const StepTensors one{.param = param.data(),
                            .grad = grad.data(),
                            .states = {m.data(), v.data(), amsgrad ? l.data() : nullptr},
                            .numel = n,
                            .master = master.data(),
                            .step = step};
      const StepTensors two{.param = wide.data(),
                            .grad = wide_grad.data(),
                            .states = {wm.data(), wv.data(), amsgrad ? wl.data() : nullptr},
                            .numel = n,
                            .step = step};
      adam_step({&one, 1}, dtype_of<P>, DType::kFloat32, args);
      adam_step({&two, 1}, DType::kFloat32, DType::kFloat32, args);
      ASSERT_EQ(master, wide);
      ASSERT_EQ(m, wm);
      ASSERT_EQ(v, wv);
      ASSERT_EQ(l, wl);
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(param[i].bits, P(wide[i]).bits);
    }
  }
}

TEST(Adam, MastersAreFloat32Parameters) {
  for_each_target([] {
    for (int bits = 0; bits < 8; ++bits) {
      const AdamArgs a{.lr = 0.01, .weight_decay = 0.1, .decoupled = bool(bits & 1), .maximize = bool(bits & 4)};
      master_case<BFloat16>(a, bits & 2);
      master_case<Half>(a, bits & 2);
    }
  });
  BFloat16 p(1);
  float state = 0;
  const StepTensors with_master{.param = &p, .grad = &p, .states = {&state, &state}, .numel = 1, .master = &state};
  EXPECT_THROW(adam_step({&with_master, 1}, DType::kBFloat16, DType::kBFloat16, {}), TypeError);
  EXPECT_THROW(adam_step({&with_master, 1}, DType::kFloat32, DType::kFloat32, {}), TypeError);
}

TEST(Sgd, AMasterIsForSixteenBits) {
  float master = 1, state = 0;
  BFloat16 p(1), g(0.5F);
  const StepTensors t{.param = &p, .grad = &g, .states = {&state}, .numel = 1, .master = &master};
  sgd_step({&t, 1}, DType::kBFloat16, DType::kFloat32, {.lr = 0.001, .momentum = 0.9, .first = true});
  EXPECT_FLOAT_EQ(master, 0.9995F);
  EXPECT_EQ(float(p), 1.0F);
  EXPECT_EQ(state, 0.5F);
  EXPECT_THROW(sgd_step({&t, 1}, DType::kFloat32, DType::kFloat32, {}), TypeError);
}

TEST(Unscale, CountsBeforeItMultiplies) {
  for_each_target([] {
    for (const int64_t n : kSizes) {
      std::vector<float> values(n, 3);
      int64_t infinite = 0, nan = 0;
      for (int64_t i = 0; i < n; i += 7, ++infinite) values[i] = i % 2 ? INFINITY : -INFINITY;
      for (int64_t i = 3; i < n; i += 7, ++nan) values[i] = NAN;
      const TensorRef t{values.data(), n, DType::kFloat32};
      for (const double factor : {1.0, 0.5}) {
        const NonFinite found = unscale({&t, 1}, factor);
        EXPECT_EQ(found.infinite, infinite);
        EXPECT_EQ(found.nan, nan);
        if (n > 1) EXPECT_EQ(values[1], 3 * factor);
      }
    }
  });
  EXPECT_THROW(unscale(std::array{TensorRef{nullptr, 0, DType::kInt32}}, 0.5), TypeError);
}

template <class P>
void sgd_case(SgdArgs args) {
  for (int64_t n : kSizes) {
    auto param = random_values<P>(n, 1);
    std::vector<P> buffer(n);
    std::vector<double> rp(param.begin(), param.end()), rb(n);
    for (int step = 0; step < 3; ++step) {
      const auto grad = random_values<P>(n, 10 + step);
      const StepTensors t{.param = param.data(),
                          .grad = grad.data(),
                          .states = {args.momentum != 0 ? buffer.data() : nullptr},
                          .numel = n};
      args.first = step == 0;
      sgd_step({&t, 1}, dtype_of<P>, dtype_of<P>, args);
      for (int64_t i = 0; i < n; ++i) {
        double g = double(grad[i]) * (args.maximize ? -1 : 1) + args.weight_decay * rp[i];
        if (args.momentum != 0) {
          rb[i] = step == 0 ? g : args.momentum * rb[i] + (1 - args.dampening) * g;
          g = args.nesterov ? g + args.momentum * rb[i] : rb[i];
        }
        rp[i] -= args.lr * g;
      }
    }
    for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(double(param[i]), rp[i], kTolerance<P> * (1 + std::abs(rp[i])));
  }
}

TEST(Sgd, AllVariants) {
  for_each_target([] {
    for (int bits = 0; bits < 16; ++bits) {
      const SgdArgs a{.lr = 0.1,
                      .momentum = bits & 1 ? 0.9 : 0.0,
                      .dampening = bits & 2 && !(bits & 4) ? 0.3 : 0.0,
                      .weight_decay = bits & 8 ? 0.01 : 0.0,
                      .nesterov = bool(bits & 4),
                      .maximize = bool(bits & 8)};
      sgd_case<float>(a);
      sgd_case<double>(a);
      sgd_case<BFloat16>(a);
    }
  });
}

TEST(Optim, SameBitsForAnyThreadCountAndListing) {
  const int64_t n = 100003;
  const auto grad = random_values<float>(n, 2);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2})
    for (const bool split : {false, true}) {
      set_num_threads(threads);
      auto p = random_values<float>(n, 1);
      std::vector<float> m(n), v(n);
      std::vector<StepTensors> list{
          {.param = p.data(), .grad = grad.data(), .states = {m.data(), v.data()}, .numel = n}};
      if (split) {
        list[0].numel = 777;
        list.push_back({.param = p.data() + 777,
                        .grad = grad.data() + 777,
                        .states = {m.data() + 777, v.data() + 777},
                        .numel = n - 777});
      }
      adam_step(list, DType::kFloat32, DType::kFloat32, {.weight_decay = 0.1});
      results.push_back(p);
    }
  for (const auto& r : results) EXPECT_EQ(0, std::memcmp(r.data(), results[0].data(), n * sizeof(float)));
}

TEST(Optim, RefusesWrongDtypes) {
  EXPECT_THROW(adam_step({}, DType::kInt32, DType::kInt32, {}), TypeError);
  EXPECT_THROW(adam_step({}, DType::kFloat32, DType::kFloat64, {}), TypeError);
  EXPECT_THROW(sgd_step({}, DType::kFloat8E4M3, DType::kFloat8E4M3, {}), TypeError);
}

TEST(Optim, SumSquares) {
  auto a = random_values<float>(30001, 1);
  auto b = random_values<BFloat16>(9, 2);
  std::vector<double> first;
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    const TensorRef list[] = {
        {a.data(), 30001, DType::kFloat32}, {nullptr, 0, DType::kFloat32}, {b.data(), 9, DType::kBFloat16}};
    double out[3], alone;
    sum_squares(list, out);
    sum_squares({list + 2, 1}, &alone);
    double want = 0;
    for (float x : a) want += double(x) * x;
    EXPECT_NEAR(out[0], want, 1e-9 * want);
    EXPECT_EQ(out[1], 0);
    EXPECT_EQ(out[2], alone);
    if (first.empty()) first.assign(out, out + 3);
    EXPECT_EQ(first, std::vector<double>(out, out + 3));
  }
}

}  // namespace
}  // namespace deepseek::kernels
