#include "kernels/moe/moe_quant.h"

#include <algorithm>

#include "kernels/moe/moe_rows.h"
#include "kernels/quant/qgemm_rows.h"
#include "kernels/simd/routes.h"

namespace deepseek::kernels {
namespace {

constexpr int64_t kColumns = PackedQuant::kColumns;
constexpr int64_t kGroup = kQBlockPanels / 2;  // panels of gate and of up at a time

// A matrix as int8, with a scale a row.
class Int8Rows {
 public:
  Int8Rows(const FloatRows& from, int64_t rows, int64_t k, int64_t padded)
      : padded_(padded),
        codes_(static_cast<size_t>(rows * padded)),
        scales_(static_cast<size_t>(rows) * sizeof(float)) {
    parallel_for(rows, grain_for(k * 4), [&](int64_t begin, int64_t end) {
      const Buffer scratch(static_cast<size_t>(k) * sizeof(float));
      for (int64_t i = begin; i < end; ++i)
        scales_.as<float>()[i] =
            quantize_row(from, i, k, codes_.as<int8_t>() + i * padded, padded, scratch.as<float>());
    });
  }
  void put(int64_t i, QTileRows& to, int64_t at) const {
    to.put(at, codes_.as<int8_t>() + i * padded_, scales_.as<float>()[i]);
  }

 private:
  int64_t padded_;
  Buffer codes_, scales_;
};

int64_t padded_k(const PackedQuant& w) { return w.steps() * PackedQuant::kStep; }

// One thread's rows of a unit times groups of panels.
class Worker {
 protected:
  Worker(const PackedQuant& w, int64_t rows, int64_t results)
      : x_(w, rows), part_(rows * kGroup * kColumns), sums_(static_cast<size_t>(results * part_) * sizeof(float)) {}

  static constexpr int64_t kWidth = kGroup * kColumns;
  float* sums(int64_t result, int64_t row = 0) const { return sums_.as<float>() + result * part_ + row * kWidth; }

  // f(first panel, end, first column, columns) for the groups of a unit.
  template <class F>
  void for_each_group(const ExpertUnit& u, const PackedQuant& w, F&& f) {
    const int64_t base = u.expert * w.panels(), end = u.panel0 + u.panels;
    for (int64_t p = u.panel0; p < end; p += kGroup) {
      const int64_t q = std::min(p + kGroup, end), c0 = p * kColumns;
      f(base + p, base + q, c0, std::min(q * kColumns, w.n) - c0);
    }
  }

  QTileRows x_;

 private:
  int64_t part_;
  Buffer sums_;
};

struct Job {
  const MoeQuantCall& call;
  const ExpertRows& rows;
  const PackedExperts& w;
  MoeRowKernel row;
  char* hidden;      // [rows, F] of the call's dtype
  float* pair_rows;  // [tokens * slots, D]
};

class QuantHiddenWorker : Worker {
 public:
  QuantHiddenWorker(const Job& job, const Int8Rows& tokens, int64_t rows)
      : Worker(*job.w.gate, rows, 2), job_(job), tokens_(tokens) {}

  void operator()(const ExpertUnit& u) {
    x_.cut(u.rows);
    for (int64_t r = 0; r < u.rows; ++r) tokens_.put(job_.rows.token[static_cast<size_t>(u.row0 + r)], x_, r);
    for_each_group(u, *job_.w.gate, [&](int64_t p, int64_t q, int64_t c0, int64_t columns) {
      qgemm_panels(*job_.w.gate, x_, p, q, sums(0), kWidth);
      qgemm_panels(*job_.w.up, x_, p, q, sums(1), kWidth);
      for (int64_t r = 0; r < u.rows; ++r) {
        char* to = job_.hidden + ((u.row0 + r) * job_.w.gate->n + c0) * size_of(job_.call.dtype);
        job_.row.scaled_swiglu({sums(0, r), sums(1, r), nullptr, nullptr, to, job_.call.limit}, x_.scale(r), columns);
      }
    });
  }

 private:
  const Job& job_;
  const Int8Rows& tokens_;
};

class QuantDownWorker : Worker {
 public:
  QuantDownWorker(const Job& job, const Int8Rows& hidden, int64_t rows)
      : Worker(*job.w.down, rows, 1), job_(job), hidden_(hidden) {}

  void operator()(const ExpertUnit& u) {
    const PackedQuant& w = *job_.w.down;
    x_.cut(u.rows);
    for (int64_t r = 0; r < u.rows; ++r) hidden_.put(u.row0 + r, x_, r);
    for_each_group(u, w, [&](int64_t p, int64_t q, int64_t c0, int64_t columns) {
      qgemm_panels(w, x_, p, q, sums(0), kWidth);
      for (int64_t r = 0; r < u.rows; ++r) {
        const float *from = sums(0, r), scale = x_.scale(r);
        float* to = job_.pair_rows + job_.rows.pair[static_cast<size_t>(u.row0 + r)] * w.n + c0;
        for (int64_t c = 0; c < columns; ++c) to[c] = __builtin_fmaf(from[c], scale, 0.0f);  // as qgemm stores them
      }
    });
  }

 private:
  const Job& job_;
  const Int8Rows& hidden_;
};

std::vector<ExpertUnit> units_of(const ExpertRows& rows, const PackedQuant& w) {
  std::vector<ExpertUnit> units;
  add_units(units, 0, rows, {w.panels(), w.k * kColumns, kQMostRows});
  sort_by_cost(units);
  return units;
}

}  // namespace

void moe_quant_forward(const MoeQuantCall& call, const ExpertRows& rows, const PackedExperts& w) {
  count_route(Route::kMoeInt8);
  count_route(qtile_vnni(*w.gate, 1) ? Route::kQgemmVnni : Route::kQgemmAvx2);
  const int64_t dim = w.down->n, hidden = w.gate->n;
  const Buffer hidden_rows(static_cast<size_t>(rows.rows() * hidden * size_of(call.dtype))),
      pair_rows(static_cast<size_t>(rows.pairs() * dim) * sizeof(float));
  const Job job{call, rows, w, moe_row_kernel(call.dtype), hidden_rows.as<char>(), pair_rows.as<float>()};
  {
    const Int8Rows tokens({call.dtype, call.input, dim}, call.tokens, dim, padded_k(*w.gate));
    const std::vector<ExpertUnit> units = units_of(rows, *w.gate);
    run_units(units, [&] { return QuantHiddenWorker(job, tokens, longest_unit(units)); });
  }
  const Int8Rows inner({call.dtype, hidden_rows.as<void>(), hidden}, rows.rows(), hidden, padded_k(*w.down));
  const std::vector<ExpertUnit> units = units_of(rows, *w.down);
  run_units(units, [&] { return QuantDownWorker(job, inner, longest_unit(units)); });
  combine_slots({call.out_dtype, call.tokens, rows.slots, dim, rows.empty}, pair_rows.as<void>(), call.weights,
                call.out);
}

}  // namespace deepseek::kernels
