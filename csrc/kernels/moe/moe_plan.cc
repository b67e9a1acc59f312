#include "kernels/moe/moe_plan.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace deepseek::kernels {

ExpertRows sort_by_expert(const View& ids, int64_t experts) {
  DS_CHECK(ids.ndim() == 2 && ids.dtype == DType::kInt64, "moe kernel: expert ids must be int64 [tokens, slots]");
  const int64_t tokens = ids.sizes[0], slots = ids.sizes[1];
  const auto id = [&](int64_t t, int64_t k) { return ids.as<int64_t>()[t * ids.strides[0] + k * ids.strides[1]]; };
  ExpertRows r{experts, slots, std::vector<int64_t>(static_cast<size_t>(experts) + 1, 0), {}, {}, {}};
  std::vector<int64_t> expert_of;  // read once: other threads may write the ids
  expert_of.reserve(static_cast<size_t>(tokens * slots));
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = 0; k < slots; ++k) {
      const int64_t e = id(t, k);
      DS_CHECK_AS(IndexError, e >= -1 && e < experts, "moe: expert index ", e, " is out of range for ", experts,
                  " experts (-1: no expert)");
      expert_of.push_back(e);
      if (e < 0)
        r.empty.push_back(t * slots + k);
      else
        ++r.offset[static_cast<size_t>(e) + 1];
    }
  for (size_t e = 0; e < static_cast<size_t>(experts); ++e) r.offset[e + 1] += r.offset[e];
  r.pair.resize(static_cast<size_t>(r.offset.back()));
  r.token.resize(r.pair.size());
  std::vector<int64_t> next(r.offset.begin(), r.offset.end() - 1);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = 0; k < slots; ++k) {
      const int64_t e = expert_of[static_cast<size_t>(t * slots + k)];
      if (e < 0) continue;
      const auto at = static_cast<size_t>(next[static_cast<size_t>(e)]++);
      r.pair[at] = t * slots + k;
      r.token[at] = t;
    }
  return r;
}

void add_units(std::vector<ExpertUnit>& units, int job, const ExpertRows& rows, const UnitRule& rule) {
  constexpr int64_t kUnitsPerThread = 8;
  const double share = static_cast<double>(std::max<int64_t>(rows.rows(), 1)) / (num_threads() * kUnitsPerThread);
  for (int64_t e = 0; e < rows.experts; ++e) {
    const int64_t begin = rows.offset[static_cast<size_t>(e)], end = rows.offset[static_cast<size_t>(e) + 1];
    if (begin == end && !rule.empty) continue;
    int64_t row = begin;
    do {
      const int64_t count = std::min(end - row, rule.row_block);
      const int64_t fair = static_cast<int64_t>(std::ceil(static_cast<double>(count) / share));
      const int64_t least = rule.panels / rule.panel_block + (rule.panels % rule.panel_block != 0);
      const int64_t parts = std::clamp<int64_t>(std::max(fair, least), 1, std::max<int64_t>(rule.panels, 1));
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t p0 = rule.panels * part / parts, p1 = rule.panels * (part + 1) / parts;
        // A few rows cost what reading their panel costs.
        const double cost = static_cast<double>(std::max<int64_t>(count, 4) * (p1 - p0) * rule.steps);
        units.push_back({job, e, row, count, p0, p1 - p0, cost});
      }
      row += count;
    } while (row < end);
  }
}

void sort_by_cost(std::vector<ExpertUnit>& units) {
  std::stable_sort(units.begin(), units.end(), [](const auto& a, const auto& b) { return a.cost > b.cost; });
}

int64_t longest_unit(const std::vector<ExpertUnit>& units) {
  int64_t rows = 0;
  for (const ExpertUnit& u : units) rows = std::max(rows, u.rows);
  return rows;
}

}  // namespace deepseek::kernels
