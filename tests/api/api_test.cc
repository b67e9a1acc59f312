// What C++ programs use beyond the ops: values in and out, text, backward of a loss.
#include <gmock/gmock.h>

#include <sstream>

#include "api/deepseek.h"

namespace deepseek {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string text(const Tensor& t) {
  std::ostringstream out;
  out << t;
  return out.str();
}

TEST(Api, ValuesInAndOut) {
  const Tensor t = tensor<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  EXPECT_EQ(t.dtype(), DType::kFloat32);
  EXPECT_THAT(to_vector<int>(transpose(t, 0, 1)), ElementsAre(1, 4, 2, 5, 3, 6));
  EXPECT_THAT(to_vector<double>(slice(t, 1, 1, {})), ElementsAre(2, 3, 5, 6));
  EXPECT_EQ(tensor({int64_t{7}, int64_t{8}}).sizes(), Dims{2});
  EXPECT_THAT(to_vector<bool>(tensor<bool>({true, false})), ElementsAre(true, false));
  EXPECT_THAT(to_vector<float>(to_dtype(t, DType::kBFloat16)), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_TRUE(to_vector<float>(zeros({0, 3})).empty());
  EXPECT_THROW(tensor<float>({1, 2, 3}, {2, 2}), Error);
}

TEST(Api, ListsOfTensorsInBraces) {
  const Tensor a = tensor<float>({1, 2}), b = tensor<float>({3, 4});
  EXPECT_THAT(to_vector<float>(cat({a, b}, 0)), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(to_vector<float>(stack({a, b}, 1)), ElementsAre(1, 3, 2, 4));
  EXPECT_EQ(cat({a}, 0).sizes(), Dims{2});
}

TEST(Api, EveryOpIsAFunction) {
  const Tensor x = tensor<float>({1, 5, 2, 4, 3, 0}, {2, 3});
  const auto [values, indices] = topk(x, 2);
  EXPECT_THAT(to_vector<float>(values), ElementsAre(5, 2, 4, 3));
  EXPECT_THAT(to_vector<int64_t>(indices), ElementsAre(1, 2, 0, 1));
  EXPECT_THAT(to_vector<float>(max(x, 1)[0]), ElementsAre(5, 4));
  EXPECT_EQ(max(x).item<float>(), 5);
  EXPECT_THAT(to_vector<float>(sum(x, Dims{0}, false, DType::kFloat64)), ElementsAre(5, 8, 2));  // longer than ops.h's
  EXPECT_THAT(to_vector<float>(chunk(x, 2, 0)[1]), ElementsAre(4, 3, 0));
  EXPECT_THAT(to_vector<float>(scatter_(zeros({3}), 0, tensor<int64_t>({2}), 7)), ElementsAre(0, 0, 7));
  EXPECT_EQ(randint(10, {4}).dtype(), DType::kInt64);
  Tensor y = clone(x);
  EXPECT_TRUE(clamp_(y, scalar(1), scalar(4)).is(y));
  EXPECT_THAT(to_vector<float>(y), ElementsAre(1, 4, 2, 4, 3, 1));
  EXPECT_THROW(topk(x, 7), Error);
}

TEST(Api, EveryOpHasItsGradient) {
  const Tensor x = set_requires_grad(tensor<float>({1, 3, 2}));
  backward(std::get<0>(max(x, 0)));
  EXPECT_THAT(to_vector<float>(x.grad()), ElementsAre(0, 1, 0));
}

TEST(Api, ItemAsAType) {
  EXPECT_EQ(full({}, 1.5, DType::kFloat32).item<float>(), 1.5F);
  EXPECT_EQ(full({1, 1}, 1.75, DType::kFloat64).item<int>(), 1);
  EXPECT_EQ(full({}, int64_t{1} << 60, DType::kInt64).item<int64_t>(), int64_t{1} << 60);
  EXPECT_TRUE(full({}, 0.5, DType::kBFloat16).item<bool>());
  EXPECT_THROW(zeros({2}).item<float>(), Error);
}

TEST(Api, BackwardOfALossAndItsGradients) {
  const Tensor x = set_requires_grad(tensor<float>({1, 2, 3}));
  EXPECT_FALSE(x.grad().defined());
  const Tensor loss = sum(x * x);
  backward(loss, {.retain_graph = true});
  EXPECT_THAT(to_vector<float>(x.grad()), ElementsAre(2, 4, 6));
  backward(loss);
  EXPECT_THAT(to_vector<float>(x.grad()), ElementsAre(4, 8, 12));
  EXPECT_THROW(backward(x * x), Error);  // not one element
}

TEST(Api, Losses) {
  const Tensor logits = set_requires_grad(tensor<float>({0, 0, 0, 0}, {2, 2}));
  const Tensor loss = cross_entropy(logits, tensor<int64_t>({0, 1}));
  EXPECT_NEAR(loss.item<double>(), std::log(2.0), 1e-6);
  backward(loss);
  EXPECT_THAT(to_vector<float>(logits.grad()), ElementsAre(-0.25F, 0.25F, 0.25F, -0.25F));
  EXPECT_EQ(mse_loss(tensor<float>({1, 2}), tensor<float>({3, 2})).item<float>(), 2);
}

TEST(Api, TextOfATensor) {
  EXPECT_EQ(text(Tensor()), "tensor(undefined)");
  EXPECT_EQ(text(full({}, 2.5, DType::kFloat32)), "tensor(2.5)");
  EXPECT_EQ(text(tensor<int64_t>({1, -20, 3})), "tensor([  1, -20,   3])");
  EXPECT_EQ(text(tensor<bool>({true, false})), "tensor([ True, False])");
  EXPECT_EQ(text(zeros({0, 3})), "tensor([], size=[0, 3])");
  EXPECT_EQ(text(tensor<double>({1, 2, 3, 4}, {2, 2})), "tensor([[1, 2],\n        [3, 4]], dtype=float64)");
  EXPECT_EQ(text(transpose(tensor<float>({1, 2, 3, 4}, {2, 2}), 0, 1)), "tensor([[1, 3],\n        [2, 4]])");
  EXPECT_EQ(text(set_requires_grad(ones({1}))), "tensor([1], requires_grad=True)");
  EXPECT_EQ(text(arange(2000)), "tensor([   0,    1,    2, ..., 1997, 1998, 1999])");
  const std::string large = text(zeros({100, 100}));
  EXPECT_THAT(large, HasSubstr("[0, 0, 0, ..., 0, 0, 0],\n        ...,\n"));
}

}  // namespace
}  // namespace deepseek
