// The sink of a leaf, and how views and their bases exchange gradient edges after writes.
#include <array>
#include <mutex>

#include "autograd/engine.h"
#include "core/dispatch/recorder.h"
#include "core/op_node.h"
#include "kernels/pointwise/pointwise.h"
#include "ops/ops.h"

namespace deepseek {

namespace {
// Python may have handed out what no count shows: the object through a weak reference, the memory to NumPy.
bool private_to_cpp(const Tensor& t) {
  const Storage& memory = *t.storage();
  return !t.cell()->python_owned && !t.cell()->inference && !memory.exposed() && !memory.read_only();
}
}  // namespace

Tensor unshared(const Tensor& g) {
  if (g.cell()->use_count() != 1 || g.requires_grad()) return {};
  const bool fills_its_memory = g.numel() > 0 && is_dense(g.sizes(), g.strides());
  if (!fills_its_memory && g.strides() != contiguous_strides(g.sizes())) return {};
  const size_t bytes = static_cast<size_t>(g.numel()) * size_of(g.dtype());
  if (!private_to_cpp(g) || g.storage()->bytes() > 2 * bytes + 1024) return {};  // a part would keep the whole alive
  const GradMeta* m = g.cell()->grad_meta.get();
  if (!m || !m->base.defined()) return g.storage()->use_count() == 1 ? g : Tensor();
  const Tensor& base = m->base;
  const bool alone = base.cell()->use_count() == 1 && base.storage() == g.storage() && private_to_cpp(base);
  return alone && g.storage()->use_count() == 2 ? g.alias() : Tensor();
}

namespace {

// Threads that run backward into one leaf take turns: those with the interpreter lock by keeping it, others by a mutex,
// shared by leaves that fall on the same one. Nobody waits for the lock while holding the mutex.
std::mutex& mutex_of(const Tensor& leaf) {
  static std::array<std::mutex, 64> all;
  return all[(reinterpret_cast<uintptr_t>(leaf.cell()) >> 6) % all.size()];
}

void accumulate(const Tensor& leaf, const Tensor& g, bool create_graph) {
  const KeepHostLock whole;
  const std::lock_guard<std::mutex> turn(mutex_of(leaf));
  Tensor& target = grad_meta(leaf).grad;
  if (create_graph) {
    target = target.defined() ? add(target, g) : clone(g);  // never the tensor that was given as the gradient itself
  } else if (!target.defined()) {
    const Dims wanted = preserved_strides(leaf.sizes(), leaf.strides());
    if (g.strides() == wanted || g.strides() == contiguous_strides(g.sizes())) target = unshared(g);
    if (!target.defined()) {
      target = Tensor::empty_strided(g.sizes(), wanted, g.dtype());
      copy_(target, g.alias());
    }
  } else {
    add_(target, g);  // in place: an optimizer may hold on to .grad
  }
}

class AccumulateGrad final : public Node {
 public:
  explicit AccumulateGrad(const Tensor& leaf) : leaf_(leaf) { outputs.push_back(leaf.meta()); }
  ~AccumulateGrad() override { grad_meta(leaf_).accumulator = nullptr; }
  std::string name() const override { return "AccumulateGrad"; }
  const Tensor& leaf() const { return leaf_; }

  void run_hooks(TensorList& grads) override {
    const std::vector<HookEntry> now = grad_meta(leaf_).leaf_hooks;
    for (const HookEntry& h : now)
      if (Tensor replaced = h.hook->call(grads[0]); replaced.defined()) grads[0] = replaced;
  }

  TensorList backward(Inputs grads, BackwardPass pass) override {
    const bool create_graph = pass.create_graph;
    if (!grads[0].defined() || !leaf_.requires_grad()) return {};  // it may be switched off since the graph was made
    DS_CHECK(leaf_.is_leaf(),
             "leaf variable has been moved into the graph interior: it was detached and then written by a "
             "recorded op, so this gradient is of a value it no longer has");
    if (Recorder* r = mode().recorder) {
      {
        const RecorderPause pause;
        accumulate(leaf_, grads[0], create_graph);
      }
      r->record_accumulate(leaf_, grads[0], create_graph);
    } else {
      accumulate(leaf_, grads[0], create_graph);
    }
    const std::vector<HookEntry> now = grad_meta(leaf_).post_accumulate_hooks;
    for (const HookEntry& h : now) h.hook->call(leaf_);
    return {};
  }

 private:
  Tensor leaf_;
};

}  // namespace

const Tensor* leaf_of(const Node& node) {
  const auto* sink = dynamic_cast<const AccumulateGrad*>(&node);
  return sink ? &sink->leaf() : nullptr;
}

namespace {

template <OpStruct Op>
Edge op_edge(const Op& op, std::initializer_list<Edge> next, std::initializer_list<Tensor> in, const Tensor& out) {
  const TensorList inputs(in);
  const TensorList outputs{out};
  auto* node = new OpNode(op_def<Op>(), &op, inputs, outputs);
  size_t i = 0;
  for (const Edge& e : next) node->next[i++] = e;
  return {Ref<Node>(node), 0};
}

// Cells that carry geometry only, so that building the node asks nobody for an edge.
Tensor geometry(const Tensor& t) { return Tensor::meta_only(t.meta(), t.strides()); }

Edge rederive_view(const Tensor& view, const Tensor& base) {
  const AsStrided op{view.sizes(), view.strides(), Opt<int64_t>(view.offset() - base.offset())};
  return op_edge(op, {base.edge()}, {geometry(base)}, geometry(view));
}

Edge scatter_into_base(const Tensor& view, const Tensor& base, Edge base_edge, Edge value, const Meta& value_meta) {
  const AsStridedScatter op{view.sizes(), view.strides(), view.offset() - base.offset()};
  const Tensor source = Tensor::meta_only(value_meta, contiguous_strides(value_meta.sizes));
  return op_edge(op, {std::move(base_edge), std::move(value)}, {geometry(base), source}, geometry(base));
}

const bool installed = [] {
  autograd_hooks().make_accumulator = [](const Tensor& leaf) { return Ref<Node>(new AccumulateGrad(leaf)); };
  autograd_hooks().grad = [](Inputs outputs, Inputs grads, Inputs inputs) {
    return grad(outputs, grads, inputs, {.retain_graph = mode().grad, .create_graph = mode().grad});
  };
  autograd_hooks().accumulate = accumulate;
  autograd_hooks().rederive_view = rederive_view;
  autograd_hooks().scatter_into_base = scatter_into_base;
  return true;
}();

}  // namespace
}  // namespace deepseek
