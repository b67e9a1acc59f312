#include "kernels/nn/linear_cross_entropy.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "kernels/gemm/matmul.h"
#include "kernels/loops/copy.h"
#include "runtime/allocator.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kLogits = int64_t{33} << 20;  // most logits that exist at once: 132 MiB

View dense_view(void* data, DType dtype, int64_t rows, int64_t columns) {
  return {data, dtype, {rows, columns}, {columns, 1}};
}
View transposed(const View& v) { return {v.data, v.dtype, {v.sizes[1], v.sizes[0]}, {v.strides[1], v.strides[0]}}; }
View rows_of(const View& v, int64_t begin, int64_t count) {
  View part = v;
  part.data = v.at(begin * v.strides[0]);
  part.sizes[0] = count;
  return part;
}

template <class C>
class Blocks {
 public:
  Blocks(const LinearCrossEntropyArgs& args, const View* grad_input, const View* grad_weight, const View* grad_bias)
      : a_(args),
        rows_(args.input.sizes[0]),
        features_(args.input.sizes[1]),
        classes_(args.weight.sizes[0]),
        wants_grad_(grad_input || grad_weight || grad_bias),
        grad_input_(grad_input),
        grad_weight_(grad_weight),
        grad_bias_(grad_bias) {
    const int64_t blocks = (rows_ * classes_ + kLogits - 1) / kLogits;
    step_ = std::max<int64_t>(1, (rows_ + blocks - 1) / std::max<int64_t>(1, blocks));
  }

  void run(C* loss) {
    const bool small = a_.input.dtype != dtype_of<C>;
    const double total = a_.mean ? cross_entropy_total_weight(a_.target, a_.loss, a_.input.dtype) : 1;
    const C slope = static_cast<C>(1 / total);
    Buffer logits(bytes(step_ * classes_)), losses(bytes(rows_)), lse(bytes(step_));
    Buffer narrow(small && wants_grad_ ? static_cast<size_t>(step_ * classes_) * 2 : 64);
    // The weight's gradient is summed over blocks in the computing type.
    const bool sums = small && grad_weight_ && step_ < rows_;
    Buffer weight_sums(sums ? bytes(classes_ * features_) : 64);
    const View weight_target = !grad_weight_ ? View{}
                               : sums        ? dense_view(weight_sums.as<C>(), dtype_of<C>, classes_, features_)
                                             : *grad_weight_;
    Buffer ones(bytes(step_));
    std::fill_n(ones.as<C>(), step_, C(1));
    for (int64_t begin = 0; begin < rows_; begin += step_) {
      const int64_t count = std::min(step_, rows_ - begin);
      const View x = rows_of(a_.input, begin, count), target = rows_of(a_.target, begin, count);
      const View scores = dense_view(logits.as<C>(), dtype_of<C>, count, classes_);
      matmul(scores, x, transposed(a_.weight), a_.bias.data ? &a_.bias : nullptr);
      cross_entropy_forward(scores, target, a_.loss, losses.as<C>() + begin, lse.as<C>());
      if (!wants_grad_) continue;
      cross_entropy_backward(scores, scores, target, a_.loss, lse.as<C>(), &slope, 0);
      View slopes = scores;  // in the inputs' dtype
      if (small) {
        slopes = dense_view(narrow.as<char>(), a_.input.dtype, count, classes_);
        copy(slopes, scores);
      }
      if (grad_input_) matmul(rows_of(*grad_input_, begin, count), slopes, a_.weight);
      if (grad_weight_) matmul(weight_target, transposed(slopes), x, nullptr, begin > 0);
      if (grad_bias_)
        matmul(dense_view(grad_bias_->data, dtype_of<C>, 1, classes_), dense_view(ones.as<C>(), dtype_of<C>, 1, count),
               scores, nullptr, begin > 0);
    }
    if (sums) copy(*grad_weight_, weight_target);
    double sum = 0;
    for (int64_t i = 0; i < rows_; ++i) sum += losses.as<C>()[i];
    *loss = static_cast<C>(sum / total);
  }

 private:
  static size_t bytes(int64_t count) { return static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(C); }

  const LinearCrossEntropyArgs& a_;
  const int64_t rows_, features_, classes_;
  const bool wants_grad_;
  const View *grad_input_, *grad_weight_, *grad_bias_;
  int64_t step_;
};

void fill_zero(const View* v) {
  const double zero = 0;
  if (v) fill(*v, &zero, DType::kFloat64);
}

}  // namespace

void linear_cross_entropy(const LinearCrossEntropyArgs& args, void* loss, const View* grad_input,
                          const View* grad_weight, const View* grad_bias) {
  const int64_t classes = args.weight.sizes[0];
  check_targets(args.target, classes, args.loss.ignore_index);
  if (args.input.sizes[0] == 0) {
    for (const View* v : {grad_weight, grad_bias}) fill_zero(v);
    const double empty = args.mean ? std::numeric_limits<double>::quiet_NaN() : 0;
    return fill({loss, args.input.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32, {}, {}}, &empty,
                DType::kFloat64);
  }
  if (args.input.dtype == DType::kFloat64)
    Blocks<double>(args, grad_input, grad_weight, grad_bias).run(static_cast<double*>(loss));
  else
    Blocks<float>(args, grad_input, grad_weight, grad_bias).run(static_cast<float*>(loss));
}

}  // namespace deepseek::kernels
