// Gradients of a mixture of experts. With g the gradient of a token's output and w the routing weight of a row:
//   first   r = g Wd,  d w = r . h,  d h = w r, and through SwiGLU the gradients of gate and up rows;
//   then    d x = sum over rows of (d gate Wg + d up Wu),  d Wg = (d gate)^T x,  d Wu = (d up)^T x,  d Wd = g^T (w h).
// h is made again from the saved pre-activations. A weight's gradient is a product over the rows of its expert.
#include <algorithm>
#include <memory>
#include <vector>

#include "base/check.h"
#include "kernels/moe/moe_parts.h"

namespace deepseek::kernels {
namespace {

enum Phase : int { kInput, kGateUp, kDown };

struct Backward {
  const MoeJob& job;
  View grad_out;
  const char *gate_rows, *up_rows;
  char *grad_gate, *grad_up, *weighted_hidden;  // [rows, F], storage dtype
  char* dots;                                   // [rows, panels of F] sums
  MoeGradients to;

  // The gradient of a row's output, before its routing weight.
  GroupMatrix grad_of(int64_t row0) const {
    return {grad_out.data, grad_out.strides[0], grad_out.strides[1], job.rows.token.data() + row0};
  }
};

// --- first: gradients of the hidden rows

class HiddenGradWorker {
 public:
  HiddenGradWorker(const Backward& b, int64_t rows)
      : b_(b), job_(b.job), scratch_(b.job.kernel, rows, b.job.in.dim(), kMoeWidePanels) {}

  void operator()(const ExpertUnit& u) {
    scratch_.load_rows(b_.grad_of(u.row0), u.rows, job_.in.dim());
    const ExpertMatrix down = expert_matrix(job_.in.down, u.expert, false);
    const int64_t f = job_.in.hidden(), bytes = job_.sum_bytes(), panels = job_.panels_of(f);
    multiply_unit(job_, scratch_, u, {&down, 1}, [&](int64_t row, const char* sums, int64_t c0, int64_t columns) {
      const int64_t at = (row * f + c0) * job_.size;
      const char* weight = static_cast<const char*>(job_.in.weights) + job_.rows.pair[static_cast<size_t>(row)] * bytes;
      job_.row.swiglu_backward(
          {sums, b_.gate_rows + at, b_.up_rows + at, b_.grad_gate + at, b_.grad_up + at, b_.weighted_hidden + at,
           job_.in.limit, b_.dots + (row * panels + c0 / job_.kernel.width) * bytes},
          weight, columns);
    });
  }

 private:
  const Backward& b_;
  const MoeJob& job_;
  MoeScratch scratch_;
};

template <class T>
void sum_dots(const Backward& b) {
  const int64_t panels = b.job.panels_of(b.job.in.hidden());
  for (const int64_t pair : b.job.rows.empty) static_cast<T*>(b.to.weights)[pair] = 0;
  for (int64_t row = 0; row < b.job.rows.rows(); ++row) {
    T sum = 0;
    for (int64_t p = 0; p < panels; ++p) sum += reinterpret_cast<const T*>(b.dots)[row * panels + p];
    static_cast<T*>(b.to.weights)[b.job.rows.pair[static_cast<size_t>(row)]] = sum;
  }
}

// --- then: gradients of the weights, sums over the rows of an expert

// to[e] [m, n] = left^T right, for left [rows, m] and right [rows, n]. Several left matrices share a packed right one.
struct WeightGrad {
  int64_t m, n;
  struct Output {
    GroupMatrix left;  // row 0 is the first of all sorted rows, or an index says which row of the matrix each one is
    char* to;
  };
  std::vector<Output> outputs;
  GroupMatrix right;
};

GroupMatrix from_row(GroupMatrix m, int64_t row0, int64_t size) {
  if (m.index)
    m.index += row0;
  else
    m.data = static_cast<const char*>(m.data) + row0 * m.row * size;
  return m;
}

class WeightGradWorker {
 public:
  WeightGradWorker(const MoeJob& job, int64_t rows) : job_(job) {
    const int64_t m = std::max(job.in.hidden(), job.in.dim()), block = std::min(rows, kGemmBlockK);
    left_panels_ = (m + kLeftPanel - 1) / kLeftPanel;
    left_size_ = left_panels_ * kLeftPanel * job.kernel.steps(block) * job.kernel.element;
    left_ = std::make_unique<Buffer>(static_cast<size_t>(2 * left_size_));
    right_ =
        std::make_unique<Buffer>(static_cast<size_t>(job.kernel.steps(block) * job.kernel.width * job.kernel.element));
    sums_ =
        std::make_unique<Buffer>(static_cast<size_t>(left_panels_ * kLeftPanel * job.kernel.width * job.sum_bytes()));
  }

  void operator()(const ExpertUnit& u, const WeightGrad& g) {
    const int64_t width = job_.kernel.width, matrix = u.expert * g.m * g.n;
    if (u.rows == 0) return zero(u, g, matrix);
    const GroupMatrix right = from_row(g.right, u.row0, job_.size);
    // One block of rows is packed once for all panels, several are packed again for each.
    const bool once = u.rows <= kGemmBlockK;
    for (size_t i = 0; once && i < g.outputs.size(); ++i) pack_left(i, g, u.row0, u.rows);
    for (int64_t p = u.panel0; p < u.panel0 + u.panels; ++p) {
      const int64_t c0 = p * width, columns = std::min(width, g.n - c0);
      for (size_t i = 0; i < (once ? 1 : g.outputs.size()); ++i)
        for (int64_t r0 = 0; r0 < u.rows; r0 += kGemmBlockK) {
          const int64_t block = std::min(kGemmBlockK, u.rows - r0);
          job_.kernel.pack(right, r0, block, c0, columns, width, right_->as<char>(), width, nullptr);
          if (!once) pack_left(i, g, u.row0 + r0, block);
          for (size_t o = i; o < (once ? g.outputs.size() : i + 1); ++o)
            multiply(o, g, block, matrix + c0, columns, r0 > 0, r0 + block == u.rows);
        }
    }
  }

 private:
  void zero(const ExpertUnit& u, const WeightGrad& g, int64_t matrix) const {
    const int64_t c0 = u.panel0 * job_.kernel.width, c1 = std::min(g.n, (u.panel0 + u.panels) * job_.kernel.width);
    for (const WeightGrad::Output& o : g.outputs)
      for (int64_t r = 0; r < g.m; ++r)
        std::memset(o.to + (matrix + r * g.n + c0) * job_.size, 0, static_cast<size_t>((c1 - c0) * job_.size));
  }

  void pack_left(size_t output, const WeightGrad& g, int64_t row0, int64_t rows) {
    const GroupMatrix left = from_row(g.outputs[output].left, row0, job_.size);
    const int64_t panel = job_.kernel.steps(rows) * kLeftPanel * job_.kernel.element;
    char* to = left_->as<char>() + static_cast<int64_t>(output) * left_size_;
    for (int64_t c = 0; c < g.m; c += kLeftPanel, to += panel)
      job_.kernel.pack(left, 0, rows, c, std::min(kLeftPanel, g.m - c), kLeftPanel, to, kLeftPanel, nullptr);
  }

  // One panel of columns, from element `at` of the output. Straight into it where it holds whole sums.
  void multiply(size_t output, const WeightGrad& g, int64_t rows, int64_t at, int64_t columns, bool add, bool last) {
    const GroupKernel& k = job_.kernel;
    const bool direct = columns == k.width && job_.size == job_.sum_bytes();
    char* to = g.outputs[output].to + at * job_.size;
    char* out = direct ? to : sums_->as<char>();
    const int64_t out_row = direct ? g.n : k.width, steps = k.steps(rows);
    const bool large = g.m * g.n * job_.rows.experts * job_.size > kCacheBytes;
    const bool stream =
        large && direct && !add && last && reinterpret_cast<uintptr_t>(out) % 64 == 0 && g.n * job_.size % 64 == 0;
    const TileStart start = add ? TileStart::kAdd : stream ? TileStart::kZeroStream : TileStart::kZero;
    const char* left = left_->as<char>() + static_cast<int64_t>(output) * left_size_;
    for (int64_t r = 0; r < g.m; r += kLeftPanel) {
      const int64_t count = std::min(kLeftPanel, g.m - r);
      char* sums = out + r * out_row * job_.sum_bytes();
      k.multiply({count, steps, left + r * steps * k.element, 1, kLeftPanel, right_->as<char>(), sums, out_row, start});
      if (!direct && last) k.store_rows(sums, k.width, count, columns, to + r * g.n * job_.size, g.n, large);
    }
  }

  static constexpr int64_t kCacheBytes = int64_t{16} << 20;  // larger gradients are not kept in the caches
  const MoeJob& job_;
  int64_t left_panels_, left_size_;
  std::unique_ptr<Buffer> left_, right_, sums_;
};

// Scratch memory is taken when the first unit of a sort comes.
class BackwardWorker {
 public:
  BackwardWorker(const MoeJob& job, const Projection& input, const WeightGrad& gate_up, const WeightGrad& down,
                 int64_t rows)
      : job_(job), input_(input), gate_up_(gate_up), down_(down), rows_(rows) {}

  void operator()(const ExpertUnit& u) {
    if (u.job == kInput) {
      if (!projection_) projection_ = std::make_unique<ProjectionWorker>(job_, input_, std::min(rows_, kMoeRowBlock));
      return (*projection_)(u);
    }
    if (!weight_grad_) weight_grad_ = std::make_unique<WeightGradWorker>(job_, rows_);
    (*weight_grad_)(u, u.job == kGateUp ? gate_up_ : down_);
  }

 private:
  const MoeJob& job_;
  const Projection& input_;
  const WeightGrad &gate_up_, &down_;
  int64_t rows_;
  std::unique_ptr<ProjectionWorker> projection_;
  std::unique_ptr<WeightGradWorker> weight_grad_;
};

void hidden_gradients(const Backward& b) {
  const MoeJob& j = b.job;
  std::vector<ExpertUnit> units;
  add_units(units, 0, j.rows, {j.panels_of(j.in.hidden()), j.in.dim() * j.kernel.width, kMoeRowBlock, kMoeWidePanels});
  sort_by_cost(units);
  run_units(units, [&] { return HiddenGradWorker(b, longest_unit(units)); });
  if (!b.to.weights) return;
  if (j.kernel.wide)
    sum_dots<double>(b);
  else
    sum_dots<float>(b);
}

void remaining_gradients(const Backward& b) {
  const MoeJob& j = b.job;
  const MoeInputs& in = j.in;
  const int64_t d = in.dim(), f = in.hidden(), pairs = j.rows.pairs();
  Buffer pair_rows(static_cast<size_t>(b.to.input ? pairs * d * j.sum_bytes() : 0));
  const Projection input{f, d, {{b.grad_gate, in.gate, false}, {b.grad_up, in.up, false}}, pair_rows.as<char>()};
  const WeightGrad gate_up{
      f,
      d,
      {{{b.grad_gate, f, 1}, static_cast<char*>(b.to.gate)}, {{b.grad_up, f, 1}, static_cast<char*>(b.to.up)}},
      {in.input.data, in.input.strides[0], in.input.strides[1], j.rows.token.data()}};
  const WeightGrad down{d, f, {{b.grad_of(0), static_cast<char*>(b.to.down)}}, {b.weighted_hidden, f, 1}};
  std::vector<ExpertUnit> units;
  if (b.to.input) add_projection_units(units, kInput, j, input);
  const auto whole = [&](int job, int64_t m, int64_t n, int64_t outputs) {
    add_units(units, job, j.rows, {j.panels_of(n), m * j.kernel.width * outputs, INT64_MAX, INT64_MAX, true});
  };
  if (b.to.gate) whole(kGateUp, f, d, 2);
  if (b.to.down) whole(kDown, d, f, 1);
  sort_by_cost(units);
  run_units(units, [&] { return BackwardWorker(j, input, gate_up, down, longest_unit(units)); });
  if (b.to.input)
    combine_slots({j.in.input.dtype, j.in.tokens(), j.rows.slots, j.in.dim(), j.rows.empty}, pair_rows.as<char>(),
                  nullptr, b.to.input);
}

}  // namespace

void moe_backward(const MoeInputs& in, const ExpertRows& rows, const void* gate_rows, const void* up_rows,
                  const View& grad_out, const MoeGradients& to) {
  DS_CHECK((to.gate == nullptr) == (to.up == nullptr), "moe kernel: gradients of gate and up go together");
  const MoeJob job{in, rows};
  const int64_t elements = rows.rows() * in.hidden();
  Buffer rows_of_hidden(static_cast<size_t>(3 * elements * job.size));
  Buffer dots(static_cast<size_t>(rows.rows() * job.panels_of(in.hidden()) * job.sum_bytes()));
  char* h = rows_of_hidden.as<char>();
  const Backward b{job,
                   grad_out,
                   static_cast<const char*>(gate_rows),
                   static_cast<const char*>(up_rows),
                   h,
                   h + elements * job.size,
                   h + 2 * elements * job.size,
                   dots.as<char>(),
                   to};
  hidden_gradients(b);
  remaining_gradients(b);
}

}  // namespace deepseek::kernels
