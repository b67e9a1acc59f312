#include "api/print.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "core/dispatch/recorder.h"
#include "core/mode.h"
#include "core/node.h"

namespace deepseek {
namespace {

constexpr int64_t kSummarizeAbove = 1000;  // elements
constexpr int64_t kEdge = 3;

template <class T>
std::string text_of(T value) {
  if constexpr (std::is_same_v<T, bool>) return value ? "True" : "False";
  if constexpr (std::is_integral_v<T>) return std::to_string(value);
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", static_cast<double>(value));
  return text;
}

// The entries that are shown, in the order they are shown, padded to one width.
class Text {
 public:
  Text(const Tensor& t, std::ostream& out) : t_(t), out_(out), cut_(t.numel() > kSummarizeAbove) {
    visit(0, t.offset(), [&](int64_t offset) {
      const std::string text = entry(offset);
      width_ = std::max(width_, static_cast<int>(text.size()));
    });
  }

  void write(int dim, int64_t offset, int indent) const {
    if (dim == t_.dim()) {
      const std::string text = entry(offset);
      out_ << std::string(static_cast<size_t>(width_) - text.size(), ' ') << text;
      return;
    }
    const bool rows = dim + 1 < t_.dim();
    const std::string next = rows ? ",\n" + std::string(static_cast<size_t>(indent) + 1, ' ') : ", ";
    out_ << '[';
    const char* between = "";
    for (const int64_t i : shown(dim)) {
      out_ << between;
      between = next.c_str();
      if (i < 0)
        out_ << "...";
      else
        write(dim + 1, offset + i * t_.strides()[dim], indent + 1);
    }
    out_ << ']';
  }

 private:
  // The indices of a dim that are shown; -1 stands for those left out.
  std::vector<int64_t> shown(int dim) const {
    const int64_t n = t_.sizes()[dim];
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < n; ++i) {
      if (cut_ && n > 2 * kEdge && i == kEdge) {
        indices.push_back(-1);
        i = n - kEdge;
      }
      indices.push_back(i);
    }
    return indices;
  }

  template <class F>
  void visit(int dim, int64_t offset, F&& f) const {
    if (dim == t_.dim()) return f(offset);
    for (const int64_t i : shown(dim))
      if (i >= 0) visit(dim + 1, offset + i * t_.strides()[dim], f);
  }

  std::string entry(int64_t offset) const {
    return dispatch(t_.dtype(),
                    [&]<class T>() { return text_of(static_cast<const T*>(t_.storage()->data())[offset]); });
  }

  const Tensor& t_;
  std::ostream& out_;
  const bool cut_;
  int width_ = 0;
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& t) {
  if (!t.defined()) return out << "tensor(undefined)";
  if (mode().recorder) mode().recorder->refuse("a tensor was printed");
  constexpr int kOpening = 7;  // "tensor("
  out << "tensor(";
  Text(t, out).write(0, t.offset(), kOpening);
  if (t.numel() == 0 && t.dim() > 1) out << ", size=" << t.sizes();
  const DType d = t.dtype();
  if (d != DType::kFloat32 && d != DType::kInt64 && d != DType::kBool) out << ", dtype=" << name_of(d);
  if (t.requires_grad()) out << (t.is_leaf() ? ", requires_grad=True" : ", grad");
  return out << ')';
}

}  // namespace deepseek
