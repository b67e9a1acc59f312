// The choke point. Every op call goes: autocast -> infer -> allocate -> eval -> tape node -> record.
// Nothing else allocates op outputs or creates op nodes.
#include "core/dispatch/autocast.h"
#include "core/dispatch/autocast_off.h"
#include "core/dispatch/inplace.h"
#include "core/dispatch/lock_release.h"
#include "core/dispatch/recorder.h"
#include "core/op.h"
#include "core/op_node.h"

namespace deepseek {
namespace {

template <class F>
int64_t sum_over(Inputs in, Inputs out, F bytes_of) {
  int64_t bytes = 0;
  for (const Tensor& t : in)
    if (t.has_data()) bytes += bytes_of(t);
  for (const Tensor& t : out) bytes += bytes_of(t);
  return bytes;
}

bool worth_releasing_lock(Inputs in, Inputs out) {
  // The bytes of whole storages are known and bound those of their views.
  if (sum_over(in, out, [](const Tensor& t) { return static_cast<int64_t>(t.storage()->bytes()); }) <=
      kReleaseLockBytes)
    return false;
  // A view may repeat its elements more often than bytes can be counted.
  const auto touched = [](const Tensor& t) { return std::min(t.numel(), kReleaseLockBytes + 1) * size_of(t.dtype()); };
  return sum_over(in, out, touched) > kReleaseLockBytes;
}

void check_has_data(const OpDef& def, Inputs in) {
  for (const Tensor& t : in)
    DS_CHECK(!t.defined() || t.has_data(), "internal error: ", def.name(), " needs data its node did not save");
}

// The node's tape entry; inputs are snapshots, never cells.
Ref<Node> record_on_tape(const OpDef& def, const void* op, Inputs in, Inputs out) {
  DS_CHECK(def.vjp || !def.info->differentiable, "internal error: ", def.name(), " has no derivative");
  return Ref<Node>(new OpNode(def, op, in, out));
}

// One draw for every element of the result or of the first input (weights drawn from), whichever has more.
int64_t numbers_drawn(Inputs in, const Metas& metas) {
  const int64_t drawn_from = in[0].defined() ? in[0].numel() : 1;
  return std::max(drawn_from, metas.empty() ? 1 : numel_of(metas[0].sizes));
}

}  // namespace

Tensor draw_state(int64_t count) {
  Generator& g = mode().generator ? *mode().generator : default_generator();
  const RngState s = g.reserve(count);
  Tensor t = Tensor::empty({2}, DType::kInt64);
  t.data<int64_t>()[0] = static_cast<int64_t>(s.seed);
  t.data<int64_t>()[1] = static_cast<int64_t>(s.offset);
  if (Recorder* r = mode().recorder) {
    if (mode().generator) r->refuse("a random op has a generator of its own");
    r->record_draw(t, count);
  }
  return t;
}

void eval_op(const OpDef& def, const void* op, Inputs in, std::span<Tensor> out) {
  const LockRelease unlocked(worth_releasing_lock(in, out));
  def.eval(op, in, out);
}

namespace {

void dispatch_autocast(const OpDef& def, const void* op, Inputs in, TensorList& out) {
  const TensorList cast = autocast_inputs(def, in);
  const AutocastOff off;
  dispatch_op(def, op, cast, out);
}

void dispatch_view(const OpDef& def, const void* op, Inputs in, TensorList& out) {
  ViewSpecs specs;
  def.view(op, in[0], specs);
  for (const ViewSpec& s : specs) {
    numel_of(s.sizes);  // fails for a size that no tensor can have; the memory is the view's business
    out.push_back(in[0].alias(s));
  }
  const Mode& m = mode();
  // Remember the base so that writes through either side are seen by both.
  if (!in[0].cell()->inference && def.info->differentiable && is_differentiable(in[0].dtype())) {
    const GradMeta* source = in[0].cell()->grad_meta.get();
    const Tensor base = source && source->base.defined() ? source->base : in[0];
    ViewOrigin origin = source && source->base.defined() ? source->origin : ViewOrigin::kGrad;  // of a view's view
    if (def.schema.returns_list) origin = ViewOrigin::kMultiple;
    if (!m.records()) origin = ViewOrigin::kNoGrad;
    Ref<Node> node;
    if (m.records() && in[0].requires_grad()) node = record_on_tape(def, op, in, out);
    for (uint32_t i = 0; i < out.size(); ++i) {
      GradMeta& g = grad_meta(out[i]);
      g.base = base;
      g.origin = origin;
      g.view_version = out[i].version();
      if (node) g.edge = {node, i};
    }
  }
  if (m.recorder) m.recorder->record(def, op, in, out);
}

void run_kernel(const OpDef& def, const void* op, Inputs in, const Metas& metas, TensorList& out) {
  check_has_data(def, in);
  if (def.schema.writes) before_declared_writes(def, in);
  for (const Meta& meta : metas) {
    const bool strided = meta.strides.size() == meta.sizes.size() && !meta.sizes.empty();
    out.push_back(strided ? Tensor::empty_strided(meta.sizes, meta.strides, meta.dtype)
                          : Tensor::empty(meta.sizes, meta.dtype));
  }
  {
    const LockRelease unlocked(worth_releasing_lock(in, out));
    def.eval(op, in, {out.data(), out.size()});
  }
  if (def.schema.writes) after_declared_writes(def, in);
  // The lock is held again: the tape reads and writes what threads share (a leaf's sink, a view's edge).
  const Mode& m = mode();
  if (m.records() && def.info->differentiable && any_requires_grad(in)) {
    Ref<Node> node = record_on_tape(def, op, in, out);
    for (uint32_t i = 0; i < out.size(); ++i)
      if (is_differentiable(out[i].dtype())) set_edge(out[i], {node, i});
  }
  if (m.recorder) m.recorder->record(def, op, in, out);
}

// The generator's state becomes the last input.
void run_random(const OpDef& def, const void* op, Inputs in, const Metas& metas, TensorList& out) {
  TensorList with_state(in.first(in.size() - 1));
  with_state.push_back(draw_state(numbers_drawn(in, metas)));
  run_kernel(def, op, with_state, metas, out);
}

}  // namespace

void dispatch_op(const OpDef& def, const void* op, Inputs in, TensorList& out) {
  if (mode().autocast && def.info->autocast != Autocast::kNone) [[unlikely]]
    return dispatch_autocast(def, op, in, out);
  if (def.body) return def.body(op, in, out);
  if (def.view) return dispatch_view(def, op, in, out);
  Metas metas;
  def.infer(op, in, metas);
  if (def.info->random && !in.back().defined()) [[unlikely]]
    return run_random(def, op, in, metas, out);
  run_kernel(def, op, in, metas, out);
}

}  // namespace deepseek
