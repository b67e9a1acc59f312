#include "core/dispatch/inplace.h"

#include <algorithm>
#include <tuple>

#include "base/reach.h"
#include "core/dispatch/autocast_off.h"
#include "core/dispatch/copy_ops.h"
#include "core/dispatch/lock_release.h"
#include "core/dispatch/promotion.h"
#include "core/dispatch/recorder.h"
#include "core/node.h"
#include "kernels/loops/copy.h"

namespace deepseek {
namespace {

// One value everywhere may be written to overlapping windows, but not to memory that is broadcast.
bool repeats_no_memory(const Tensor& self) {
  for (int i = 0; i < self.dim(); ++i)
    if (self.strides()[i] == 0 && self.sizes()[i] > 1) return false;
  return true;
}

// `fills`: with one value.
void check_writable(const Tensor& self, const char* op, bool recording, bool fills) {
  const GradMeta* m = self.cell()->grad_meta.get();
  DS_CHECK(!self.storage()->read_only(), op,
           ": this tensor's memory is read-only (it came from a read-only array); "
           "write to a clone() of it");
  DS_CHECK(!may_overlap_itself(self.sizes(), self.strides()) || (fills && !recording && repeats_no_memory(self)),
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

void write_now(const Tensor& target, const Tensor& value, const char* op, bool fresh) {
  const bool recording =
      mode().records() && is_differentiable(target.dtype()) && (target.requires_grad() || value.requires_grad());
  check_writable(target, op, recording, false);
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

// The same for all that an op writes to and reads. Memory that one tensor alone has, as parameters and states do, is
// not looked at: a step has thousands of them.
void check_no_partial_overlaps(const OpDef& def, Inputs in) {
  struct Range {
    const Storage* storage;
    int64_t first, last;
    size_t input;
    bool written = false;
  };
  std::vector<Range> shared;
  for (size_t i = 0; i < in.size(); ++i) {
    const Tensor& t = in[i];
    if (!t.defined() || !t.has_data() || t.numel() == 0 || t.storage()->use_count() == 1) continue;
    const Reach reach(t.sizes(), t.strides(), t.offset());
    const int64_t size = size_of(t.dtype());
    shared.push_back({t.storage().get(), reach.first * size, reach.end * size, i});
  }
  if (shared.size() < 2) return;
  auto next = shared.begin();  // both lists are in the order of the inputs
  def.schema.for_each_written(in.size(), [&](size_t i) {
    while (next != shared.end() && next->input < i) ++next;
    if (next != shared.end() && next->input == i) next->written = true;
  });
  std::ranges::sort(shared, [](const Range& a, const Range& b) {
    return std::tie(a.storage, a.first, a.input) < std::tie(b.storage, b.first, b.input);
  });
  // In this order one overlaps an earlier one of its storage where it begins before the furthest end.
  const Range *furthest = nullptr, *furthest_written = nullptr;
  for (const Range& r : shared) {
    if (furthest && furthest->storage != r.storage) furthest = furthest_written = nullptr;
    const Range* const before = r.written ? furthest : furthest_written;
    if (before && r.first < before->last) check_no_partial_overlap(in[before->input], in[r.input], def.name());
    if (!furthest || r.last > furthest->last) furthest = &r;
    if (r.written && (!furthest_written || r.last > furthest_written->last)) furthest_written = &r;
  }
}

void dispatch_inplace_now(const OpDef& def, const void* op, Inputs in, Recorder* recorder) {
  const Tensor& self = in[0];
  const bool recording = mode().records() && any_requires_grad(in) && is_differentiable(self.dtype());
  check_writable(self, def.name(), recording, def.info->fills);
  if (def.info->elementwise)
    for (const Tensor& t : in.subspan(1)) check_no_partial_overlap(t, self, def.name());
  const bool runs_in_place = def.info->elementwise || def.info->writes_part;
  if (!recording && def.infer && !def.info->random && runs_in_place) {
    Metas metas;
    def.infer(op, in, metas);
    if (metas[0].dtype == self.dtype() && metas[0].sizes == self.sizes()) {
      TensorList safe(in);
      // An input that overlaps the target is read from a copy; one that is the target need not be where an element of
      // the result is made of those at its place.
      for (size_t i = 1; i < safe.size(); ++i) {
        if (!shares_memory(safe[i], self) || (def.info->elementwise && same_geometry(safe[i], self))) continue;
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
      if (!shares_memory(t, self) || !(def.body || def.info->saves.input(i, needs))) continue;
      Tensor old = Tensor::empty(t.sizes(), t.dtype());
      kernels::copy(old.view(), t.view());
      if (t.requires_grad()) set_edge(old, t.edge());
      const Clone clone;
      if (recorder) recorder->record(op_def<Clone>(), &clone, {&t, 1}, {&old, 1});
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

}  // namespace

void before_declared_writes(const OpDef& def, Inputs in) {
  const bool recording = mode().records() && any_requires_grad(in);
  def.schema.for_each_written(in.size(), [&](size_t i) {
    if (!in[i].defined()) return;
    check_writable(in[i], def.name(), recording, false);
    if (mode().recorder) mode().recorder->before_write(in[i]);
  });
  check_no_partial_overlaps(def, in);
  DS_CHECK(!recording, def.name(), "() writes to its arguments and has no derivative; call it under no_grad()");
}

void after_declared_writes(const OpDef& def, Inputs in) {
  def.schema.for_each_written(in.size(), [&](size_t i) {
    if (in[i].defined()) in[i].storage()->bump_version();
  });
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

}  // namespace deepseek
