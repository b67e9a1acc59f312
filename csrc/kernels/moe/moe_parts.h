// The pieces that the forward and the backward pass of a mixture of experts share.
#pragma once

#include <span>
#include <vector>

#include "kernels/moe/moe.h"
#include "kernels/moe/moe_rows.h"
#include "kernels/moe/moe_scratch.h"

namespace deepseek::kernels {

struct MoeJob {
  const MoeInputs& in;
  const ExpertRows& rows;
  GroupKernel kernel = group_kernel(in.input.dtype);
  MoeRowKernel row = moe_row_kernel(in.input.dtype);
  int64_t size = size_of(in.input.dtype);

  int64_t sum_bytes() const { return kernel.wide ? 8 : 4; }
  int64_t panels_of(int64_t columns) const { return (columns + kernel.width - 1) / kernel.width; }
};

// Matrix e of weight [E, k, n]; transposed: of [E, n, k], read as [k, n].
inline ExpertMatrix expert_matrix(const View& weight, int64_t e, bool transposed) {
  const int k = transposed ? 2 : 1, n = transposed ? 1 : 2;
  return {{weight.at(e * weight.strides[0]), weight.strides[k], weight.strides[n]},
          weight.sizes[k],
          weight.sizes[n],
          size_of(weight.dtype),
          weight.dtype};
}
inline ExpertMatrix quantized_matrix(const QuantMatrix& stack, int64_t e, DType dtype) {
  return {{nullptr, 1, stack.k}, stack.k, stack.n, size_of(dtype), dtype, &stack, e};
}

// Sorted rows [rows, k] times a matrix an expert; the result of a row lies at its pair's place. Parts are summed.
struct Projection {
  struct Part {
    const void* rows;
    View weight;
    bool transposed;                     // weight is [E, n, k], else [E, k, n]
    const QuantMatrix* codes = nullptr;  // [n, k] of each expert, in place of weight

    ExpertMatrix of(int64_t e, DType dtype) const {
      return codes ? quantized_matrix(*codes, e, dtype) : expert_matrix(weight, e, transposed);
    }
  };
  int64_t k, n;
  std::vector<Part> parts;
  char* to;  // [tokens * slots, n] sums
};
void add_projection_units(std::vector<ExpertUnit>& units, int job, const MoeJob& j, const Projection& p);

// f(panel, row, sums, first column, columns) for the results of a unit of rows times matrices, whose parts are summed.
template <class Finish>
void multiply_unit(const MoeJob& job, MoeScratch& scratch, const ExpertUnit& u, std::span<const ExpertMatrix> parts,
                   Finish&& f) {
  const int64_t width = job.kernel.width, n = parts[0].n, begin = u.panel0 * width,
                end = std::min((u.panel0 + u.panels) * width, n);
  const auto finish = [&](int64_t panel, int64_t row, int64_t c0) {
    f(u.row0 + row, scratch.sums_of(panel, row), c0, std::min(width, end - c0));
  };
  if (!parts[0].by_columns()) {
    for (size_t i = 0; i < parts.size(); ++i)
      scratch.by_rows(u.rows, parts[i], begin, end - begin, static_cast<int64_t>(i));
    for (int64_t row = 0; row < u.rows; ++row)
      for (int64_t p = 0; p < u.panels; ++p) finish(p, row, begin + p * width);
    return;
  }
  for (int64_t c0 = begin; c0 < end; c0 += width) {
    for (size_t i = 0; i < parts.size(); ++i) {
      const ExpertMatrix& m = parts[i];
      const Ahead next = m.columns_ahead(c0 + width, std::min(width, end - c0 - width));
      const char* stream = u.rows <= kMoeStreamRows ? next.data : nullptr;
      const GroupMatrix columns = scratch.columns_of(m, c0, std::min(width, end - c0));
      const auto pack = [&](int64_t k0, int64_t k, char* to) {
        job.kernel.pack(columns, k0, k, 0, std::min(width, end - c0), width, to, width, &stream);
      };
      scratch.by_columns(u.rows, m.k, stream ? Ahead{} : next, pack, static_cast<int64_t>(i));
    }
    for (int64_t row = 0; row < u.rows; ++row) finish(0, row, c0);
  }
}

class ProjectionWorker {
 public:
  ProjectionWorker(const MoeJob& job, const Projection& p, int64_t rows)
      : job_(job), p_(p), scratch_(job.kernel, rows, p.k, kMoeWidePanels, static_cast<int64_t>(p.parts.size())) {}
  void operator()(const ExpertUnit& u);

 private:
  const MoeJob& job_;
  const Projection& p_;
  MoeScratch scratch_;
};

}  // namespace deepseek::kernels
