// Linear layers with the activation, sum or product that follows: one call, whose result passes the caches once.
#include <algorithm>
#include <string>

#include "jit/graph.h"
#include "ops/matmul/matmul.h"
#include "ops/pointwise/activation.h"
#include "ops/pointwise/pointwise.h"

namespace deepseek::jit {
namespace {

struct Use {
  int64_t count = 0;
  int64_t node = -1;  // the last one
};

std::vector<Use> uses_of_slots(const Graph& g) {
  std::vector<Use> uses(g.slots.size());
  for (size_t i = 0; i < g.nodes.size(); ++i)
    for (const int32_t s : g.nodes[i].in)
      if (s >= 0) uses[s] = {uses[s].count + 1, static_cast<int64_t>(i)};
  for (const int32_t s : g.outputs) ++uses[s].count;
  return uses;
}

// The name of a sum or product, as `combine` has it.
std::string_view combination_of(const GraphNode& n) {
  using kernels::Pointwise;
  if ((n.def != &pointwise_op(Pointwise::kAdd) && n.def != &pointwise_op(Pointwise::kMul)) ||
      (n.def->size > 0 && !n.def->equal(n.attributes.data(), n.def->defaults.data())))
    return "none";
  return n.def->schema.name;
}

// A linear layer and the nodes after it that only they themselves see.
struct Chain {
  size_t linear, last;
  const kernels::Activation* activation = nullptr;
  std::string combine = "none";  // "radd": other + y
  int32_t other = -1;
};

class Fusion {
 public:
  explicit Fusion(Graph& g) : g_(g), uses_(uses_of_slots(g)), sharers_(g.slots.size()), written_(written_memory(g)) {
    for (const Slot& s : g.slots) ++sharers_[s.memory];
  }

  void run() {
    std::vector<bool> gone(g_.nodes.size());
    for (size_t i = 0; i < g_.nodes.size(); ++i) {
      const GraphNode& n = g_.nodes[i];
      if (n.step == Step::kHost || (n.def && n.def->info->reads_data)) break;  // other sizes may follow on a replay
      if (gone[i] || !plain(n) || n.def != &linear_op()) continue;
      const Chain c = chain_from(i);
      if (c.last == c.linear || !may_move(c)) continue;
      for (size_t j = i; j < c.last; ++j) gone[j] = gone[j] || on_chain(c, j);
      g_.nodes[c.last] = fused(c);
    }
    size_t i = 0;
    std::erase_if(g_.nodes, [&](const GraphNode&) { return gone[i++]; });
  }

 private:
  static bool plain(const GraphNode& n) { return n.step == Step::kOp && !n.grad; }

  // The node that alone reads `s`, if nothing else can see its memory and the result looks like it.
  int64_t only_reader(int32_t s) const {
    const Slot& slot = g_.slots[s];
    if (uses_[s].count != 1 || uses_[s].node < 0 || sharers_[slot.memory] != 1) return -1;
    const GraphNode& n = g_.nodes[uses_[s].node];
    if (!plain(n) || n.out.size() != 1) return -1;
    const Meta &from = slot.meta, &to = g_.slots[n.out[0]].meta;
    const bool alike = to.dtype == from.dtype && to.sizes == from.sizes && is_contiguous(to.sizes, to.strides);
    return alike && is_floating(to.dtype) ? uses_[s].node : -1;
  }

  Chain chain_from(size_t linear) const {
    Chain c{linear, linear};
    int32_t s = g_.nodes[linear].out[0];
    if (g_.slots[g_.nodes[linear].in[1]].meta.sizes.size() != 2) return c;
    int64_t next = only_reader(s);
    c.activation = next >= 0 ? activation_of(*g_.nodes[next].def) : nullptr;
    if (c.activation) {
      c.last = static_cast<size_t>(next);
      s = g_.nodes[next].out[0];
      next = only_reader(s);
    }
    if (next >= 0 && combination_of(g_.nodes[next]) != "none") {
      const GraphNode& n = g_.nodes[next];
      const bool first = n.in[0] == s;  // the order decides which of two NaNs is the result
      const int32_t other = n.in[first];
      if (g_.slots[other].meta.dtype != g_.slots[s].meta.dtype) return c;
      c.combine = (first ? "" : "r") + std::string(combination_of(n));
      c.other = other;
      c.last = static_cast<size_t>(next);
    }
    return c;
  }

  // The call moves to the last node's place: what it reads must be the same there.
  bool may_move(const Chain& c) const {
    for (const int32_t s : g_.nodes[c.linear].in)
      if (s >= 0 && written_[g_.slots[s].memory]) return false;
    for (size_t i = c.linear; i < c.last; ++i) {
      const GraphNode& n = g_.nodes[i];
      if (g_.changes_inputs(n) || (n.def && n.def->info->reads_data)) return false;
    }
    return true;
  }

  // Between a linear layer and the end of its chain stands the activation, which reads the layer's result.
  bool on_chain(const Chain& c, size_t j) const {
    return j == c.linear || (c.activation && !g_.nodes[j].in.empty() && g_.nodes[j].in[0] == g_.nodes[c.linear].out[0]);
  }

  GraphNode fused(const Chain& c) const {
    const OpDef& def = linear_fused_op();
    const GraphNode &linear = g_.nodes[c.linear], &last = g_.nodes[c.last];
    GraphNode n;
    n.inference = last.inference;
    n.def = &def;
    n.attributes.resize(static_cast<int>(attribute_bytes(def)));
    def.init(n.attributes.data());
    const std::string_view values[] = {c.activation ? c.activation->name : "none", c.combine};
    for (int i = 0; i < 2; ++i) *reinterpret_cast<Str*>(n.attributes.data() + def.fields[i].offset) = Str(values[i]);
    n.in = linear.in;
    if (n.in.size() < 3) n.in.push_back(-1);
    n.in.push_back(c.other);
    n.out = last.out;
    return n;
  }

  Graph& g_;
  std::vector<Use> uses_;
  std::vector<int64_t> sharers_;  // by memory
  std::vector<bool> written_;     // by memory
};

}  // namespace

void fuse_linear(Graph& g) { Fusion(g).run(); }

}  // namespace deepseek::jit
