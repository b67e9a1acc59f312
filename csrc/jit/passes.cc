// The passes. Memory numbers stand for storage: a write through one slot is seen by all slots on the same memory.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "jit/graph.h"

namespace deepseek::jit {
namespace {

int32_t memory_count(const Graph& g) {
  int32_t n = 0;
  for (const Slot& s : g.slots) n = std::max(n, s.memory + 1);
  return n;
}

// Writes a value into memory, gradients and all: what an op writes by its schema has none.
bool writes(const GraphNode& n) { return n.step == Step::kInplace || n.step == Step::kWrite; }

// Results on a tape that leaves the call: also what a write to such memory was made from.
bool touches(const Graph& g, const GraphNode& n, const std::vector<bool>& memory) {
  for (const int32_t s : n.out)
    if (s >= 0 && memory[g.slots[s].memory]) return true;
  return writes(n) && memory[g.slots[n.in[0]].memory];
}

}  // namespace

std::vector<bool> shown_memory(const Graph& g) {
  std::vector<bool> shown(memory_count(g));
  const auto show = [&](int32_t s) {
    if (s >= 0) shown[g.slots[s].memory] = true;
  };
  for (const GraphNode& n : g.nodes)
    if (n.step == Step::kAccumulate || n.step == Step::kSetGrad || n.step == Step::kHost)
      for (const int32_t s : n.in) show(s);
  for (const int32_t s : g.outputs) show(s);
  return shown;
}

std::vector<bool> written_memory(const Graph& g) {
  std::vector<bool> written(memory_count(g));
  for (const GraphNode& n : g.nodes) for_each_written(n, [&](int32_t s) { written[g.slots[s].memory] = true; });
  return written;
}

std::vector<bool> memory_on_tape(const Graph& g) {
  std::vector<bool> needed(memory_count(g)), has_grad(memory_count(g));
  for (const Slot& s : g.slots)
    if (s.requires_grad) has_grad[s.memory] = true;
  const auto need = [&](int32_t s) {
    if (s >= 0 && has_grad[g.slots[s].memory]) needed[g.slots[s].memory] = true;
  };
  for (const int32_t s : g.outputs) need(s);
  for (const GraphNode& n : g.nodes) {
    const bool leaves = n.step == Step::kSetGrad || n.step == Step::kHost || (n.step == Step::kAccumulate && n.flag);
    if (leaves || (writes(n) && g.slots[n.in[0]].outside))
      for (const int32_t s : n.in) need(s);
  }
  for (size_t i = g.nodes.size(); i-- > 0;) {
    const GraphNode& n = g.nodes[i];
    if (!n.grad || !touches(g, n, needed)) continue;
    for (const int32_t s : n.in) need(s);
  }
  return needed;
}

void drop_tape(Graph& g) {
  const std::vector<bool> needed = memory_on_tape(g);
  for (GraphNode& n : g.nodes)
    if ((n.step == Step::kOp || writes(n)) && !touches(g, n, needed)) n.grad = false;
}

void merge_common(Graph& g) {
  const std::vector<bool> written = written_memory(g);
  std::vector<bool> leaves(g.slots.size());  // must stay a tensor of its own
  for (const int32_t s : g.outputs) leaves[s] = true;
  for (const GraphNode& n : g.nodes)
    if (n.step == Step::kAccumulate || n.step == Step::kSetGrad || n.step == Step::kHost)
      for (const int32_t s : n.in)
        if (s >= 0) leaves[s] = true;
  const auto steady = [&](int32_t s) { return s < 0 || !written[g.slots[s].memory]; };

  std::vector<int32_t> now(g.slots.size());
  for (size_t i = 0; i < now.size(); ++i) now[i] = static_cast<int32_t>(i);
  std::unordered_map<std::string, int32_t> numbers;  // Python numbers are the same when their bits are
  for (const Captured& c : g.captured) {
    if (!c.tensor.cell()->wrapped_number || written[g.slots[c.slot].memory] || leaves[c.slot]) continue;
    std::string bits(name_of(c.tensor.dtype()));
    bits.append(static_cast<const char*>(c.tensor.data_ptr()), static_cast<size_t>(c.tensor.nbytes()));
    now[c.slot] = numbers.try_emplace(bits, c.slot).first->second;
  }
  std::unordered_multimap<size_t, size_t> seen;  // hash -> index in kept
  std::vector<GraphNode> kept;
  for (GraphNode& n : g.nodes) {
    for (int32_t& s : n.in)
      if (s >= 0) s = now[s];
    if (g.changes_inputs(n)) seen.clear();
    bool candidate = n.step == Step::kOp && !n.def->info->random && !n.def->info->reads_data && !n.def->schema.writes;
    for (const int32_t s : n.in) candidate &= steady(s);
    for (const int32_t s : n.out) candidate &= steady(s) && !leaves[s];
    if (!candidate) {
      kept.push_back(std::move(n));
      continue;
    }
    size_t hash = reinterpret_cast<size_t>(n.def);
    for (const int32_t s : n.in) hash = (hash ^ static_cast<size_t>(s + 1)) * 0x9e3779b97f4a7c15u;
    const auto [first, last] = seen.equal_range(hash);
    const GraphNode* same = nullptr;
    for (auto it = first; it != last && !same; ++it) {
      const GraphNode& k = kept[it->second];
      if (k.def == n.def && std::ranges::equal(k.in, n.in) && k.grad == n.grad && k.inference == n.inference &&
          (n.def->size == 0 || n.def->equal(k.attributes.data(), n.attributes.data())))
        same = &k;
    }
    if (same) {
      for (size_t i = 0; i < n.out.size(); ++i) now[n.out[i]] = same->out[i];
      continue;
    }
    seen.emplace(hash, kept.size());
    kept.push_back(std::move(n));
  }
  g.nodes = std::move(kept);
}

namespace {

// Whether a call may be refused because of the values it gets: integers are divisors and indices, draws are of
// probabilities. The function would have failed there, though nobody uses the result.
std::vector<bool> fails_on_values(const Graph& g) {
  std::vector<bool> number(g.slots.size());
  for (const Captured& c : g.captured) number[c.slot] = c.tensor.cell()->wrapped_number;
  std::vector<bool> fails;
  for (const GraphNode& n : g.nodes) {
    const bool called = n.def && (n.step == Step::kOp || n.step == Step::kInplace) && !n.def->view;
    bool any = called && (n.def->info->refuses_values || n.def->info->random);
    if (called && !any)
      for (const int32_t s : n.in) {
        if (s < 0 || number[s]) continue;
        const DType t = g.slots[s].meta.dtype;
        any |= is_integral(t);
      }
    fails.push_back(any);
  }
  return fails;
}

}  // namespace

void eliminate_dead(Graph& g) {
  const std::vector<bool> fails = fails_on_values(g);
  std::vector<bool> slot(g.slots.size()), memory = shown_memory(g);
  const auto live = [&](int32_t s) {
    if (s < 0) return;
    slot[s] = true;
    memory[g.slots[s].memory] = true;
  };
  for (const int32_t s : g.outputs) live(s);
  std::vector<GraphNode> kept;
  for (size_t i = g.nodes.size(); i-- > 0;) {
    GraphNode& n = g.nodes[i];
    bool needed = g.effect_outside(n) || n.step == Step::kCheck || (n.def && n.def->info->reads_data) || fails[i];
    for (const int32_t s : n.out) needed |= s >= 0 && slot[s];
    for_each_written(n, [&](int32_t s) { needed |= memory[g.slots[s].memory]; });
    if (!needed) continue;
    for (const int32_t s : n.in) live(s);
    kept.push_back(std::move(n));
  }
  g.nodes.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
  std::erase_if(g.captured, [&](const Captured& c) {
    for (const GradState& s : g.grads)
      if (s.slot == c.slot) return false;
    return !slot[c.slot];
  });
}

// The guards hold what `infer` would look at. Not so where a size depends on values: there and after it, all is asked
// again.
void skip_inference(Graph& g) {
  bool steady = true;
  for (GraphNode& n : g.nodes) {
    steady &= n.step != Step::kHost && !(n.def && n.def->info->reads_data);
    n.known = steady && n.step == Step::kOp && !n.grad && n.def->eval && !n.def->info->random && !n.def->schema.writes;
  }
}

void release_early(Graph& g) {
  std::vector<bool> later(g.slots.size());
  for (const int32_t s : g.outputs) later[s] = true;
  for (size_t i = g.nodes.size(); i-- > 0;) {
    GraphNode& n = g.nodes[i];
    n.release.clear();
    const auto last_use = [&](int32_t s) {
      if (s < 0 || later[s]) return;
      later[s] = true;
      n.release.push_back(s);
    };
    for (const int32_t s : n.in) last_use(s);
    for (const int32_t s : n.out) last_use(s);
  }
}

const std::vector<Pass>& passes() {
  static const std::vector<Pass> all{
      {"drop_tape", "no tape for what no tensor that leaves the call depends on", drop_tape},
      {"cse", "equal calls on equal inputs are made once", merge_common},
      {"dce", "calls whose results nobody uses are left out", eliminate_dead},
      {"fuse", "a linear layer and the activation, sum or product after it are one call", fuse_linear},
      {"infer", "sizes and dtypes are not inferred again", skip_inference},
      {"release", "a tensor is freed after its last use", release_early},
  };
  return all;
}

}  // namespace deepseek::jit
