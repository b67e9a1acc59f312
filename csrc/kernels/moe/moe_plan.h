// Which rows belong to which expert, and how that work is cut into units.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/view.h"
#include "runtime/parallel.h"

namespace deepseek::kernels {

// The pairs (token, slot) sorted by expert, those of one expert in their first order. A slot without an expert is in no
// row.
struct ExpertRows {
  int64_t experts = 0, slots = 0;
  std::vector<int64_t> offset;  // [experts + 1]: rows of expert e are [offset[e], offset[e + 1])
  std::vector<int64_t> pair;    // [rows]: token * slots + slot
  std::vector<int64_t> token;   // [rows]
  std::vector<int64_t> empty;   // pairs without an expert

  int64_t rows() const { return static_cast<int64_t>(pair.size()); }
  int64_t pairs() const { return static_cast<int64_t>(pair.size() + empty.size()); }  // tokens * slots
};

// A stable counting sort of ids [tokens, slots] (int64, any strides); -1 is a slot without an expert. Raises IndexError
// for another id that is no expert.
ExpertRows sort_by_expert(const View& ids, int64_t experts);

// Rows [row0, row0 + rows) of the sorted pairs, all of one expert, times panels [panel0, panel0 + panels).
struct ExpertUnit {
  int job;  // which product, for lists of several
  int64_t expert, row0, rows, panel0, panels;
  double cost;
};

// Appends the units of a product over all experts that have rows: `panels` panels of `steps` values of k each. Cuts
// fall between panels, and between blocks of rows; they change no bits. `empty`: experts without rows get a unit too.
struct UnitRule {
  int64_t panels, steps;
  int64_t row_block = INT64_MAX;
  int64_t panel_block = INT64_MAX;
  bool empty = false;
};
void add_units(std::vector<ExpertUnit>& units, int job, const ExpertRows& rows, const UnitRule& rule);
// The largest first; equals in the order they were added.
void sort_by_cost(std::vector<ExpertUnit>& units);
int64_t longest_unit(const std::vector<ExpertUnit>& units);  // rows of it

// Threads take the next unit when they are done with one. make() gives a thread its own worker, called with units.
template <class Make>
void run_units(const std::vector<ExpertUnit>& units, Make&& make) {
  constexpr double kSerialCost = 64 * 1024;  // multiply-adds that a second thread does not pay for
  double cost = 0;
  for (const ExpertUnit& u : units) cost += u.cost;
  std::atomic<size_t> next{0};
  const int64_t grain = cost < kSerialCost ? static_cast<int64_t>(units.size()) : 1;
  const int64_t threads = std::min<int64_t>(num_threads(), static_cast<int64_t>(units.size()));
  parallel_for(threads, grain, [&](int64_t, int64_t) {
    auto worker = make();
    for (size_t i = next++; i < units.size(); i = next++) worker(units[i]);
  });
}

}  // namespace deepseek::kernels
