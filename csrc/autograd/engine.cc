#include "autograd/engine.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <unordered_map>

#include "core/dispatch/promotion.h"
#include "core/dispatch/recorder.h"
#include "core/mode.h"
#include "kernels/pointwise/add_zero.h"
#include "ops/ops.h"

namespace deepseek {
namespace {

struct Slot {
  Ref<Node> node;
  TensorList grads;
  uint64_t owned = 0;          // gradients this engine allocated itself and may add into
  uint64_t no_minus_zero = 0;  // of those, the ones that -0 was taken out of
  bool queued = false;
  bool needed = true;                                      // leads to a wanted input
  SmallVector<std::pair<uint32_t, uint32_t>, 1> captures;  // (output index, result index)
};

std::atomic<int> g_running{0};

// The gradient a node expects: broadcast dims summed, dtype of the forward value.
Tensor fit(const Tensor& g, const Meta& want, const Node& to) {
  Tensor out = g;
  if (out.sizes() != want.sizes) {
    DS_CHECK(broadcast_sizes("backward", want.sizes, out.sizes()) == out.sizes(), "Function ", to.name(),
             " received an invalid gradient: got ", out.sizes(), " but expected shape compatible with ", want.sizes);
    out = sum_to_size(out, want.sizes);
  }
  if (out.dtype() != want.dtype) out = to_dtype(out, want.dtype);
  return out;
}

class Engine final : GradientSums {
 public:
  explicit Engine(BackwardOptions options) : options_(options), nested_(g_running.fetch_add(1) > 0) {}
  ~Engine() {
    if (!nested_)
      for (Slot& s : slots_) s.node->engine_slot = nullptr;
    g_running.fetch_sub(1);
  }

  void seed(const Tensor& root, const Tensor& g) {
    const Edge e = root.edge();
    DS_CHECK(e.node, "element 0 of tensors does not require grad and does not have a grad_fn");
    deliver(e, g);
  }

  void want(const Tensor& input, uint32_t result) {
    DS_CHECK(input.requires_grad(), "One of the differentiated Tensors does not require grad");
    const Edge e = input.edge();
    if (!e.node) return;  // a view made under no_grad: it requires a gradient, as its base does, but no graph has it
    slot(e.node).captures.push_back({e.index, result});
  }

  void touch(const Tensor& root) {
    if (const Edge e = root.edge(); e.node) slot(e.node);
  }

  // Keeps only nodes on a path to a wanted input.
  void prune() {
    selective_ = true;
    std::vector<Slot*> found;
    for (Slot& s : slots_) found.push_back(&s);
    for (size_t i = 0; i < found.size(); ++i) {
      for (const Edge& e : found[i]->node->next) {
        if (!e.node) continue;
        const size_t before = slots_.size();
        Slot& s = slot(e.node);
        if (slots_.size() != before) found.push_back(&s);
      }
    }
    std::sort(found.begin(), found.end(), [](Slot* a, Slot* b) { return a->node->sequence < b->node->sequence; });
    for (Slot* s : found) {
      s->needed = false;
      for (const Edge& e : s->node->next)
        s->needed |= e.node && (slot(e.node).needed || !slot(e.node).captures.empty());
    }
  }

  void run(TensorList* results, bool accumulate_captured) {
    GradGuard guard(options_.create_graph);
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end(), before);
      Slot& s = *queue_.back();
      queue_.pop_back();
      if (host_hooks().check_interrupt) host_hooks().check_interrupt();
      s.grads.resize(std::max(s.grads.size(), s.node->outputs.size()));
      s.node->run_hooks(s.grads);
      for (const auto& [index, result] : s.captures)
        if (results) (*results)[result] = s.grads[index];
      const bool execute = !selective_ || s.needed || (accumulate_captured && !s.captures.empty());
      if (execute) step(s);
      s.grads.clear();
    }
  }

 private:
  static bool before(const Slot* a, const Slot* b) { return a->node->sequence < b->node->sequence; }

  Slot& slot(const Ref<Node>& node) {
    if (!nested_) {
      if (node->engine_slot) return *static_cast<Slot*>(node->engine_slot);
      node->engine_slot = &slots_.emplace_back();
      slots_.back().node = node;
      return slots_.back();
    }
    auto [it, fresh] = map_.try_emplace(node.get(), nullptr);
    if (fresh) {
      it->second = &slots_.emplace_back();
      it->second->node = node;
    }
    return *it->second;
  }

  // Whether gradient `index` may be added to in place: this engine's own, or unshared.
  bool own(Slot& s, uint32_t index) {
    if (options_.create_graph || index >= 64) return false;
    const uint64_t bit = uint64_t{1} << index;
    if (s.owned & bit) return true;
    Tensor mine = unshared(s.grads[index]);
    if (!mine.defined()) return false;
    s.grads[index] = std::move(mine);
    s.owned |= bit;
    return true;
  }

  void deliver(const Edge& e, const Tensor& g) {
    Slot& s = slot(e.node);
    if (selective_ && !s.needed && s.captures.empty()) return;
    s.grads.resize(std::max<size_t>(s.grads.size(), std::max<size_t>(e.node->outputs.size(), e.index + 1)));
    Tensor& have = s.grads[e.index];
    const Tensor fitted = fit(g, e.node->outputs[e.index], *e.node);
    if (!have.defined()) {
      have = fitted;
    } else if (own(s, e.index)) {
      add_(have, fitted);
    } else {
      have = add(have, fitted);
      if (!options_.create_graph && e.index < 64) s.owned |= uint64_t{1} << e.index;
    }
    if (!s.queued) {
      s.queued = true;
      queue_.push_back(&s);
      std::push_heap(queue_.begin(), queue_.end(), before);
    }
  }

  Tensor take(const Edge& e, bool contiguous) override {
    Slot& s = slot(e.node);
    const size_t i = &e - running_->next.data();
    if (i >= 64 || e.index >= s.grads.size() || !s.grads[e.index].defined()) return {};
    const Tensor& sum = s.grads[e.index];
    if (contiguous ? !sum.is_contiguous() : sum.dim() == 0 || sum.strides().back() != 1) return {};
    for (size_t other = 0; taken_ >> other; ++other)  // key and value may be one tensor
      if ((taken_ >> other & 1) && running_->next[other].node == e.node && running_->next[other].index == e.index)
        return {};
    if (!own(s, e.index)) return {};
    taken_ |= uint64_t{1} << i;
    return s.grads[e.index];
  }
  void add_zeros(const Edge& e) override {
    Slot& s = slot(e.node);
    const uint64_t bit = uint64_t{1} << e.index;
    if (s.no_minus_zero & bit) return;  // once is enough: a sum that is not -0 does not become it
    kernels::add_zero(s.grads[e.index].view());
    s.no_minus_zero |= bit;
  }

  void step(Slot& s) {
    bool any = false;
    for (const Tensor& g : s.grads) any |= g.defined();
    if (!any) return;
    Node& node = *s.node;
    if (Recorder* r = mode().recorder; r && node.sequence < r->started && !node.next.empty())
      r->refuse("backward went into a graph made before the call");
    const bool recorded = options_.create_graph || mode().recorder;
    const bool last = !options_.retain_graph && !recorded;  // a recording runs again
    taken_ = 0;
    running_ = &node;
    TensorList out = node.backward(s.grads, {options_.create_graph, last, recorded ? nullptr : this});
    if (!options_.retain_graph) node.release_saved();
    s.grads.clear();
    for (size_t i = 0; i < out.size(); ++i) {
      if (!out[i].defined() || !node.next[i].node) continue;
      if (i < 64 && (taken_ >> i & 1)) continue;  // is in the sum
      Tensor g = std::move(out[i]);
      deliver(node.next[i], g);
    }
  }

  BackwardOptions options_;
  bool nested_;
  bool selective_ = false;
  const Node* running_ = nullptr;
  uint64_t taken_ = 0;  // edges of the running node whose sums it has added to
  std::deque<Slot> slots_;
  std::unordered_map<Node*, Slot*> map_;
  std::vector<Slot*> queue_;
};

void check_roots(Inputs roots, Inputs grads) {
  for (size_t i = 0; i < roots.size(); ++i) {
    const Tensor& root = roots[i];
    DS_CHECK(root.edge().node, "element ", i, " of tensors does not require grad and does not have a grad_fn");
    if (i < grads.size() && grads[i].defined()) {
      DS_CHECK(grads[i].sizes() == root.sizes(), "Mismatch in shape: grad_output[", i, "] has a shape of ",
               grads[i].sizes(), " and output[", i, "] has a shape of ", root.sizes(), ".");
    } else {
      DS_CHECK(root.numel() == 1, "grad can be implicitly created only for scalar outputs; got shape ", root.sizes(),
               ", pass gradient= of that shape");
    }
  }
}

void seed_all(Engine& engine, Inputs roots, Inputs grads) {
  for (size_t i = 0; i < roots.size(); ++i) {
    const bool given = i < grads.size() && grads[i].defined();
    engine.seed(roots[i], given ? grads[i] : full(roots[i].sizes(), 1.0, roots[i].dtype()));
  }
}

}  // namespace

void backward(Inputs roots, Inputs grads, Inputs inputs, BackwardOptions options) {
  check_roots(roots, grads);
  Engine engine(options);
  for (uint32_t i = 0; i < inputs.size(); ++i) {
    engine.want(inputs[i], i);
    retain_grad(inputs[i]);
  }
  // Seeding comes after pruning so that gradients go only where they are wanted.
  if (!inputs.empty()) {
    for (const Tensor& r : roots) engine.touch(r);
    engine.prune();
  }
  seed_all(engine, roots, grads);
  engine.run(nullptr, true);
}

void backward(const Tensor& loss, BackwardOptions options) { backward({&loss, 1}, {}, {}, options); }

TensorList grad(Inputs roots, Inputs grads, Inputs inputs, BackwardOptions options) {
  check_roots(roots, grads);
  Engine engine(options);
  TensorList results(inputs.size());
  for (uint32_t i = 0; i < inputs.size(); ++i) engine.want(inputs[i], i);
  for (const Tensor& r : roots) engine.touch(r);
  engine.prune();
  seed_all(engine, roots, grads);
  engine.run(&results, false);
  return results;
}

// --- hooks

namespace {
std::atomic<int64_t> g_next_hook{1};

class RetainGrad final : public Hook {
 public:
  explicit RetainGrad(Ref<WeakCell> cell) : cell_(std::move(cell)) {}
  Tensor call(const Tensor& g) override {
    if (mode().recorder) mode().recorder->refuse("retain_grad() on a tensor made in the function");
    if (!cell_->cell) return {};
    Tensor& have = cell_->cell->grad_meta->grad;
    have = have.defined() ? add(have, g) : clone(g);
    return {};
  }

 private:
  Ref<WeakCell> cell_;
};

void erase_hook(std::vector<HookEntry>& hooks, int64_t id) {
  std::erase_if(hooks, [&](const HookEntry& h) { return h.id == id; });
}
}  // namespace

int64_t register_hook(const Tensor& t, Ref<Hook> hook) {
  DS_CHECK(t.requires_grad(), "cannot register a hook on a tensor that doesn't require gradient");
  const int64_t id = g_next_hook.fetch_add(1);
  if (t.is_leaf()) {
    grad_meta(t).leaf_hooks.push_back({id, 0, std::move(hook)});
  } else {
    const Edge e = t.edge();
    e.node->hooks.push_back({id, e.index, std::move(hook)});
  }
  return id;
}

int64_t register_post_accumulate_hook(const Tensor& leaf, Ref<Hook> hook) {
  DS_CHECK(leaf.requires_grad() && leaf.is_leaf(),
           "post accumulate grad hooks cannot be registered on non-leaf tensors");
  const int64_t id = g_next_hook.fetch_add(1);
  grad_meta(leaf).post_accumulate_hooks.push_back({id, 0, std::move(hook)});
  return id;
}

void remove_hook(const Tensor& t, int64_t id) {
  GradMeta& m = grad_meta(t);
  erase_hook(m.leaf_hooks, id);
  erase_hook(m.post_accumulate_hooks, id);
  if (m.edge.node) erase_hook(m.edge.node->hooks, id);
}

void retain_grad(const Tensor& t) {
  DS_CHECK(t.requires_grad(), "can't retain_grad on Tensor that has requires_grad=False");
  if (t.is_leaf() || grad_meta(t).retain_hook) return;
  const Edge e = t.edge();
  const int64_t id = g_next_hook.fetch_add(1);
  e.node->hooks.push_back({id, e.index, Ref<Hook>(new RetainGrad(weak_cell(t))), true});
  grad_meta(t).retain_hook = id;
}

}  // namespace deepseek
