#include "kernels/moe/moe.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/small_vector.h"
#include "kernels/moe/moe_parts.h"

namespace deepseek::kernels {

// --- rows times a matrix an expert

void add_projection_units(std::vector<ExpertUnit>& units, int job, const MoeJob& j, const Projection& p) {
  const int64_t steps = p.k * static_cast<int64_t>(p.parts.size());
  add_units(units, job, j.rows, {j.panels_of(p.n), steps * j.kernel.width, kMoeRowBlock, kMoeWidePanels});
}

void ProjectionWorker::operator()(const ExpertUnit& u) {
  SmallVector<ExpertMatrix, 2> parts;
  for (const Projection::Part& part : p_.parts) {
    const char* rows = static_cast<const char*>(part.rows) + u.row0 * p_.k * job_.size;
    scratch_.load_rows({rows, p_.k, 1}, u.rows, p_.k, static_cast<int64_t>(parts.size()));
    parts.push_back(part.of(u.expert, job_.in.input.dtype));
  }
  const int64_t bytes = job_.sum_bytes();
  const auto store = [&](int64_t row, const char* sums, int64_t c0, int64_t columns) {
    const int64_t pair = job_.rows.pair[static_cast<size_t>(row)];
    std::memcpy(p_.to + (pair * p_.n + c0) * bytes, sums, static_cast<size_t>(columns * bytes));
  };
  multiply_unit(job_, scratch_, u, {parts.data(), parts.size()}, store);
}

// --- hidden activations: gate and up in one tile, half a panel each

namespace {

struct Hidden {
  char *gate_rows, *up_rows, *hidden;  // [rows, F]; the first two may be null
};

class HiddenWorker {
 public:
  HiddenWorker(const MoeJob& job, const Hidden& to, int64_t rows)
      : job_(job), to_(to), half_(job.kernel.width / 2), scratch_(job.kernel, rows, job.in.dim(), 1) {}

  void operator()(const ExpertUnit& u) {
    const View& x = job_.in.input;
    scratch_.load_rows({x.data, x.strides[0], x.strides[1], job_.rows.token.data() + u.row0}, u.rows, job_.in.dim());
    const int64_t end = u.panel0 + u.panels;
    for (int64_t p = u.panel0; p < end; ++p) panel(u, p * half_, p + 1 < end ? (p + 1) * half_ : job_.in.hidden());
  }

 private:
  ExpertMatrix matrix(const View& weight, const QuantMatrix* codes, int64_t e) const {
    return codes ? quantized_matrix(*codes, e, job_.in.input.dtype) : expert_matrix(weight, e, true);
  }

  void panel(const ExpertUnit& u, int64_t c0, int64_t next) {
    const int64_t k = job_.in.dim(), f = job_.in.hidden(), columns = std::min(half_, f - c0), width = job_.kernel.width;
    const ExpertMatrix gate = matrix(job_.in.gate, job_.in.codes.gate, u.expert),
                       up = matrix(job_.in.up, job_.in.codes.up, u.expert);
    const GroupMatrix gate_columns = scratch_.columns_of(gate, c0, columns),
                      up_columns = scratch_.columns_of(up, c0, columns, 1);
    Ahead ahead = gate.columns_ahead(next, std::min(half_, f - next));
    const Ahead ahead_up = up.columns_ahead(next, std::min(half_, f - next));
    const char *stream = nullptr, *stream_up = nullptr;
    if (u.rows <= kMoeStreamRows) {
      stream = std::exchange(ahead, {}).data;
      stream_up = ahead_up.data;
    } else if (ahead.runs == 1 && ahead_up.runs == 1) {
      ahead.runs = 2;
      ahead.run_step = ahead_up.data - ahead.data;
    }
    scratch_.by_columns(u.rows, k, ahead, [&](int64_t k0, int64_t count, char* to) {
      job_.kernel.pack(gate_columns, k0, count, 0, columns, half_, to, width, &stream);
      job_.kernel.pack(up_columns, k0, count, 0, columns, half_, to + half_ * job_.kernel.element, width, &stream_up);
    });
    for (int64_t r = 0; r < u.rows; ++r) {
      const char* sums = scratch_.sums_of(0, r);
      const int64_t at = ((u.row0 + r) * f + c0) * job_.size;
      job_.row.swiglu({sums, sums + half_ * job_.sum_bytes(), to_.gate_rows ? to_.gate_rows + at : nullptr,
                       to_.up_rows ? to_.up_rows + at : nullptr, to_.hidden + at, job_.in.limit},
                      columns);
    }
  }

  const MoeJob& job_;
  const Hidden& to_;
  int64_t half_;
  MoeScratch scratch_;
};

}  // namespace

void moe_forward(const MoeInputs& in, const ExpertRows& rows, const MoeOutputs& to) {
  const MoeJob job{in, rows};
  if (in.codes.gate) count_route(Route::kMoeFp8);
  const int64_t f = in.hidden(), half = job.kernel.width / 2;
  Buffer hidden(static_cast<size_t>(rows.rows() * f * job.size));
  const Hidden inner{static_cast<char*>(to.gate_rows), static_cast<char*>(to.up_rows), hidden.as<char>()};
  for (char* saved : {inner.gate_rows, inner.up_rows})
    if (saved && !rows.empty.empty())
      std::memset(saved + rows.rows() * f * job.size, 0, rows.empty.size() * static_cast<size_t>(f * job.size));
  std::vector<ExpertUnit> units;
  add_units(units, 0, rows, {(f + half - 1) / half, in.dim() * job.kernel.width, kMoeRowBlock});
  sort_by_cost(units);
  run_units(units, [&] { return HiddenWorker(job, inner, longest_unit(units)); });

  Buffer pair_rows(static_cast<size_t>(rows.pairs() * in.dim() * job.sum_bytes()));
  const Projection down{f, in.dim(), {{hidden.as<char>(), in.down, true, in.codes.down}}, pair_rows.as<char>()};
  units.clear();
  add_projection_units(units, 0, job, down);
  sort_by_cost(units);
  run_units(units, [&] { return ProjectionWorker(job, down, longest_unit(units)); });
  combine_slots({to.out_dtype, in.tokens(), rows.slots, in.dim(), rows.empty}, pair_rows.as<char>(), in.weights,
                to.out);
}

}  // namespace deepseek::kernels
