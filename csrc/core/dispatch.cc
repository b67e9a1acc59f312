// The choke point. Every op call goes: autocast -> infer -> allocate -> eval -> tape node -> record.
// Nothing else allocates op outputs or creates op nodes.
#include "core/autocast.h"
#include "core/autocast_off.h"
#include "core/lock_release.h"
#include "core/op.h"
#include "core/op_node.h"
#include "kernels/loops/copy.h"

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

bool any_requires_grad(Inputs in) {
  for (const Tensor& t : in)
    if (t.defined() && t.requires_grad()) return true;
  return false;
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

// One value everywhere may be written to overlapping windows; memory that is broadcast (stride 0) is refused all the
// same.
bool fills_any_overlap(const Tensor& self, std::string_view op) {
  if (op != "fill" && op != "zero") return false;
  for (int i = 0; i < self.dim(); ++i)
    if (self.strides()[i] == 0 && self.sizes()[i] > 1) return false;
  return true;
}

// True when in-place writing could not be undone for the graph: the rules for leaves.
void check_writable(const Tensor& self, const char* op, bool recording) {
  const GradMeta* m = self.cell()->grad_meta.get();
  DS_CHECK(!self.storage()->read_only(), op,
           ": this tensor's memory is read-only (it came from a read-only array); "
           "write to a clone() of it");
  DS_CHECK(!may_overlap_itself(self.sizes(), self.strides()) || (!recording && fills_any_overlap(self, op)),
           "unsupported operation: more than one element of the "
           "written-to tensor refers to a single memory location. Please clone() the tensor before performing the "
           "operation. (",
           op, ", size ", self.sizes(), ", strides ", self.strides(), ")");
  DS_CHECK(!self.cell()->inference || mode().inference,
           "Inplace update to inference tensor outside InferenceMode is not "
           "allowed. You can make a clone to get a normal tensor before doing inplace update. (",
           op, ")");
  if (!recording) return;
  DS_CHECK(!(self.is_leaf() && self.cell()->requires_grad),
           "a leaf Variable that requires grad is being used in an in-place operation. (", op, ")");
  if (!m || !m->base.defined()) return;
  DS_CHECK(!(m->base.is_leaf() && self.requires_grad()),
           "a view of a leaf Variable that requires grad is being used in an in-place operation. (", op, ")");
  DS_CHECK(m->origin != ViewOrigin::kNoGrad,
           "A view was created in no_grad or inference mode and is being modified inplace with grad "
           "mode enabled. (",
           op, ")");
  DS_CHECK(m->origin != ViewOrigin::kMultiple,
           "A view is being modified inplace that is the output of a function that returns "
           "multiple views. Such functions do not allow the output views to be modified inplace. You should replace "
           "the inplace "
           "operation by an out-of-place one. (",
           op, ")");
}

// After `self`'s memory was overwritten by a value with gradient edge `value`: who now gets gradients. `fresh`: nobody
// else has that edge.
void rebase_history(const Tensor& self, Edge value, const Meta& value_meta, bool fresh) {
  GradMeta* m = self.cell()->grad_meta.get();
  if (m && m->base.defined()) {
    const Tensor base = m->base;
    set_edge(base, autograd_hooks().scatter_into_base(self, base, base.edge(), std::move(value), value_meta));
    m->view_version = self.version() - 1;  // stale: re-derived from the base when next used
    if (m->retain_hook)
      self.edge();  // .grad follows the tensor from the old edge to the new one
    else
      m->edge = {};
    return;
  }
  if (!value.node)  // a constant: what was here before gets zeros, and the tensor still requires grad
    value = autograd_hooks().scatter_into_base(self, self, self.edge(), {}, value_meta);
  else if (!fresh || value_meta.sizes != self.sizes() || value_meta.dtype != self.dtype())
    value = autograd_hooks().scatter_into_base(self, self, {}, std::move(value), value_meta);  // an edge of its own
  set_edge(self, std::move(value));
}

bool shares_memory(const Tensor& a, const Tensor& b) {
  return a.defined() && a.has_data() && a.storage() == b.storage();
}

// Reading `t` while writing `target` would depend on the order of the loop. Tensors with gaps are not looked into (they
// are read from a copy), as in PyTorch.
void check_no_partial_overlap(const Tensor& t, const Tensor& target, const char* op) {
  if (!shares_memory(t, target) || t.is(target) || t.numel() == 0 || target.numel() == 0) return;
  if (!is_dense(t.sizes(), t.strides()) || !is_dense(target.sizes(), target.strides())) return;
  const auto first = [](const Tensor& x) { return x.offset() * size_of(x.dtype()); };
  const auto last = [&](const Tensor& x) { return first(x) + x.nbytes(); };
  const bool same_range = first(t) == first(target) && last(t) == last(target);
  const bool apart = last(t) <= first(target) || last(target) <= first(t);
  DS_CHECK(apart || (same_range && t.strides() == target.strides()),
           "unsupported operation: some elements of the input tensor "
           "and the written-to tensor refer to a single memory location. Please clone() the tensor before performing "
           "the operation. (",
           op, ")");
}

// Tells the recorder of a copy that autograd keeps.
void record_clone(Recorder& recorder, const Tensor& from, const Tensor& copy) {
  const OpDef* clone = find_op("clone");
  alignas(16) char attributes[kMaxOpBytes];
  clone->init(attributes);
  recorder.record(*clone, attributes, {&from, 1}, {&copy, 1});
}

void dispatch_inplace_now(const OpDef& def, const void* op, Inputs in, Recorder* recorder);
void write_now(const Tensor& target, const Tensor& value, const char* op, bool fresh);

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
  if (!in[0].cell()->inference && def.info->differentiable && is_floating(in[0].dtype())) {
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
  for (const Meta& meta : metas) {
    const bool strided = meta.strides.size() == meta.sizes.size() && !meta.sizes.empty();
    out.push_back(strided ? Tensor::empty_strided(meta.sizes, meta.strides, meta.dtype)
                          : Tensor::empty(meta.sizes, meta.dtype));
  }
  {
    const LockRelease unlocked(worth_releasing_lock(in, out));
    def.eval(op, in, {out.data(), out.size()});
  }
  // The lock is held again: the tape reads and writes what threads share (a leaf's sink, a view's edge).
  const Mode& m = mode();
  if (m.records() && def.info->differentiable && any_requires_grad(in)) {
    Ref<Node> node = record_on_tape(def, op, in, out);
    for (uint32_t i = 0; i < out.size(); ++i)
      if (is_floating(out[i].dtype())) set_edge(out[i], {node, i});
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

void dispatch_inplace(const OpDef& def, const void* op, Inputs in) {
  const AutocastOff off;  // the target's dtype is what counts
  if (!mode().recorder) return dispatch_inplace_now(def, op, in, nullptr);
  mode().recorder->before_write(in[0]);
  const RecorderPause pause;
  dispatch_inplace_now(def, op, in, pause.paused());
  if (def.info->random && mode().generator) pause.paused()->refuse("a random op has a generator of its own");
  pause.paused()->record_inplace(def, op, in);
}

void write_into(const Tensor& target, const Tensor& value, const char* op) {
  if (mode().recorder) mode().recorder->before_write(target);
  write_now(target, value, op, false);
  if (mode().recorder) mode().recorder->record_write(target, value);
}

namespace {

void dispatch_inplace_now(const OpDef& def, const void* op, Inputs in, Recorder* recorder) {
  const Tensor& self = in[0];
  const bool recording = mode().records() && any_requires_grad(in) && is_floating(self.dtype());
  check_writable(self, def.name(), recording);
  if (def.info->kind == Kind::kPointwise)
    for (const Tensor& t : in.subspan(1)) check_no_partial_overlap(t, self, def.name());
  // Pointwise kernels and indexed writes (which start by copying input to output, here the same memory) may run in
  // place.
  const bool runs_in_place = def.info->kind == Kind::kPointwise || def.info->kind == Kind::kIndex;
  if (!recording && def.infer && !def.info->random && runs_in_place) {
    Metas metas;
    def.infer(op, in, metas);
    if (metas[0].dtype == self.dtype() && metas[0].sizes == self.sizes()) {
      TensorList safe(in);
      for (size_t i = 1; i < safe.size(); ++i) {  // an input that overlaps the target is read from a copy
        if (!shares_memory(safe[i], self) || same_geometry(safe[i], self)) continue;
        Tensor copy = Tensor::empty(safe[i].sizes(), safe[i].dtype());
        kernels::copy(copy.view(), safe[i].view());
        copy.cell()->wrapped_number = safe[i].cell()->wrapped_number;
        safe[i] = copy;
      }
      Tensor target = self;
      {
        const LockRelease unlocked(self.nbytes() > kReleaseLockBytes);
        def.eval(op, safe, {&target, 1});
      }
      self.storage()->bump_version();
      return;
    }
  }
  // The general way: the value out of place, then one write. A vjp that needs the old value keeps a copy of it.
  TensorList inputs(in);
  if (recording) {
    uint64_t needs = 0;
    for (size_t i = 0; i < in.size() && i < 64; ++i)
      if (in[i].defined() && in[i].requires_grad()) needs |= uint64_t{1} << i;
    for (size_t i = 0; i < inputs.size(); ++i) {
      Tensor& t = inputs[i];
      if (!shares_memory(t, self) || !(def.body || saves_input(def.info->saves, i, needs))) continue;
      Tensor old = Tensor::empty(t.sizes(), t.dtype());
      kernels::copy(old.view(), t.view());
      if (t.requires_grad()) set_edge(old, t.edge());
      if (recorder) record_clone(*recorder, t, old);
      t = old;
    }
  }
  TensorList result;
  dispatch_op(def, op, inputs, result);
  DS_CHECK(can_cast(result[0].dtype(), self.dtype()), "result type ", name_of(result[0].dtype()),
           " can't be cast to the desired output type ", name_of(self.dtype()), " (", def.name(), "_)");
  const auto has_its_edge = [&](const Tensor& t) {
    return t.defined() && (t.is(result[0]) || (t.requires_grad() && t.edge().node == result[0].edge().node));
  };
  write_now(self, result[0], def.name(), !recording || std::ranges::none_of(in, has_its_edge));
}

void write_now(const Tensor& target, const Tensor& value, const char* op, bool fresh) {
  const bool recording =
      mode().records() && is_floating(target.dtype()) && (target.requires_grad() || value.requires_grad());
  check_writable(target, op, recording);
  DS_CHECK(broadcast_sizes(op, target.sizes(), value.sizes()) == target.sizes(), op, ": output with shape ",
           target.sizes(), " doesn't match the broadcast shape ", broadcast_sizes(op, target.sizes(), value.sizes()));
  check_no_partial_overlap(value, target, op);
  Tensor source = value;
  if (shares_memory(value, target) && !same_geometry(value, target)) {
    source = Tensor::empty(value.sizes(), value.dtype());
    kernels::copy(source.view(), value.view());
  }
  if (!same_geometry(source, target)) {
    const LockRelease unlocked(target.nbytes() > kReleaseLockBytes);
    kernels::copy(target.view(), source.view_as(target.sizes()));
  }
  const Edge value_edge = recording ? value.edge() : Edge{};
  target.storage()->bump_version();
  if (recording) rebase_history(target, value_edge, value.meta(), fresh);
}

}  // namespace

// --- shared shape and dtype rules

DType result_type(Inputs in) {
  const auto same = [&](const Tensor& t) {
    return t.defined() && t.dtype() == in[0].dtype() && !t.cell()->wrapped_number;
  };
  if (std::all_of(in.begin(), in.end(), same)) return in.empty() ? DType::kBool : in[0].dtype();
  DType by_strength[3];
  bool seen[3] = {};
  for (const Tensor& t : in) {
    if (!t.defined()) continue;
    const int strength = t.cell()->wrapped_number ? 2 : t.dim() == 0 ? 1 : 0;
    DType d = t.dtype();
    if (strength == 2 && d == DType::kFloat64) d = default_dtype();
    by_strength[strength] = seen[strength] ? promote_types(by_strength[strength], d) : d;
    seen[strength] = true;
  }
  // A weaker group matters only when its category is higher.
  bool have = false;
  DType result = DType::kBool;
  for (int s = 0; s < 3; ++s) {
    if (!seen[s]) continue;
    if (!have)
      result = by_strength[s];
    else if (category(by_strength[s]) > category(result))
      result = promote_types(result, by_strength[s]);
    have = true;
  }
  return result;
}

Dims broadcast_sizes(const char* op, const Dims& a, const Dims& b) {
  if (a == b) return a;
  const Dims& longer = a.size() >= b.size() ? a : b;
  const Dims& shorter = a.size() >= b.size() ? b : a;
  Dims out = longer;
  const int lead = longer.size() - shorter.size();
  for (int i = 0; i < shorter.size(); ++i) {
    int64_t& o = out[i + lead];
    const int64_t s = shorter[i];
    if (o == s || s == 1) continue;
    DS_CHECK(o == 1, op, "(): The size of tensor a (", a[a.size() - (longer.size() - i - lead)],
             ") must match the size of tensor b (", b[b.size() - (longer.size() - i - lead)],
             ") at non-singleton dimension ", i + lead, "; got shapes ", a, " and ", b);
    o = s;
  }
  return out;
}

}  // namespace deepseek
