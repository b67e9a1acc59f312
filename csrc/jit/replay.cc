#include <new>

#include "core/dispatch/inplace.h"
#include "core/dispatch/recorder.h"
#include "jit/graph.h"
#include "jit/recording.h"
#include "kernels/loops/copy.h"

namespace deepseek::jit {
namespace {

class ModeRestore {
 public:
  ModeRestore() : grad_(mode().grad), inference_(mode().inference), autocast_(mode().autocast) {
    mode().autocast = false;  // the casts are part of the graph
  }
  ~ModeRestore() {
    mode().grad = grad_;
    mode().inference = inference_;
    mode().autocast = autocast_;
  }

 private:
  bool grad_, inference_, autocast_;
};

Tensor fresh_copy(const Tensor& t) {
  Tensor c = Tensor::empty(t.sizes(), t.dtype());
  kernels::copy(c.view(), t.view());
  return c;
}

ViewSpec view_of(const Meta& m, int64_t offset) { return {m.sizes, m.strides, offset}; }

// Whether the results have the sizes the function saw.
bool same_sizes(const Graph& g, const GraphNode& n, const TensorList& results) {
  if (results.size() != n.out.size()) return false;
  for (size_t i = 0; i < results.size(); ++i)
    if (results[i].sizes() != g.slots[n.out[i]].meta.sizes) return false;
  return true;
}

class Run {
 public:
  Run(const Graph& g, Inputs in) : g_(g), slots_(g.slots.size()) {
    for (size_t i = 0; i < in.size(); ++i) slots_[g.inputs[i]] = in[i];
    for (const Captured& c : g.captured) slots_[c.slot] = c.copied ? fresh_copy(c.tensor) : c.tensor;
  }

  bool step(const GraphNode& n) {
    mode().grad = n.grad;
    mode().inference = n.inference;
    TensorList in;
    for (const int32_t s : n.in) in.push_back(s < 0 ? Tensor() : slots_[s]);
    TensorList out;
    switch (n.step) {
      case Step::kOp:
        if (n.known) {
          for (const int32_t s : n.out) {
            const Meta& m = g_.slots[s].meta;
            out.push_back(Tensor::empty_strided(m.sizes, m.strides, m.dtype));
          }
          eval_op(*n.def, n.attributes.data(), in, {out.data(), out.size()});
          break;
        }
        dispatch_op(*n.def, n.attributes.data(), in, out);
        if (n.def->info->reads_data && !same_sizes(g_, n, out)) return false;
        break;
      case Step::kInplace:
        dispatch_inplace(*n.def, n.attributes.data(), in);
        break;
      case Step::kWrite:
        write_into(in[0], in[1], "copy_");
        break;
      case Step::kAlias:
        out.push_back(in[0].alias(view_of(g_.slots[n.out[0]].meta, n.number)));
        out[0].cell()->requires_grad = n.flag;
        break;
      case Step::kAccumulate:
        for (const int32_t s : n.release) slots_[s] = Tensor();  // lets the leaf keep the tensor instead of a copy
        {
          const Tensor leaf = std::move(in[0]), grad = std::move(in[1]);
          in.clear();
          autograd_hooks().accumulate(leaf, grad, n.flag);
        }
        break;
      case Step::kSetGrad: {
        Tensor& grad = grad_meta(in[0]).grad;
        replaced_.emplace_back(in[0], grad);
        grad = in[1];
        break;
      }
      case Step::kGetGrad:
        out.push_back(grad_meta(in[0]).grad);
        break;
      case Step::kCheck:
        if (!(in[0].item() == n.expected)) return false;  // by bits
        break;
      case Step::kDraw:
        out.push_back(draw_state(n.number));
        break;
      case Step::kHost:
        out = n.host->call(in);
        DS_CHECK(out.size() == n.out.size(), "jit: ", n.host->name(), " returned ", out.size(),
                 " tensors; while recording it returned ", n.out.size());
        break;
    }
    for (size_t i = 0; i < n.out.size(); ++i)
      if (n.out[i] >= 0) slots_[n.out[i]] = std::move(out[i]);
    for (const int32_t s : n.release) slots_[s] = Tensor();
    return true;
  }

  // After a check failed: what was done so far is taken back (only what can be was recorded before a check).
  void undo() {
    for (size_t i = replaced_.size(); i-- > 0;) grad_meta(replaced_[i].first).grad = replaced_[i].second;
    default_generator().set_state(rng_);
  }

  void results(TensorList& out) const {
    for (const int32_t s : g_.outputs) out.push_back(s < 0 ? Tensor() : slots_[s]);
  }

 private:
  const Graph& g_;
  SmallVector<Tensor, 32> slots_;
  std::vector<std::pair<Tensor, Tensor>> replaced_;  // leaf, its .grad before
  RngState rng_ = default_generator().state();
};

}  // namespace

bool replay(const Graph& g, Inputs in, TensorList& out) {
  const RecorderPause pause;  // a replay inside a recording is written down by the caller
  const ModeRestore restore;
  Run run(g, in);
  bool changed = false;
  for (const GraphNode& n : g.nodes) {
    changed |= g.final_effect(n);
    try {
      if (run.step(n)) continue;
    } catch (const Interrupted&) {
      throw;
    } catch (const Error&) {  // of an op: the function itself, called again, meets it where it may handle it
      if (changed) throw;
    } catch (const std::bad_alloc&) {
      if (changed) throw;
    }
    run.undo();
    return false;
  }
  run.results(out);
  return true;
}

}  // namespace deepseek::jit
