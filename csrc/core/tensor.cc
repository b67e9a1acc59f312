#include "core/tensor.h"

#include <algorithm>
#include <atomic>

#include "base/reach.h"
#include "core/dispatch/recorder.h"
#include "core/mode.h"
#include "core/node.h"

namespace deepseek {

Cell::Cell(Ref<Storage> s, int64_t at, const Dims& size, const Dims& stride, DType type, bool in_inference_mode)
    : storage(std::move(s)), offset(at), sizes(size), strides(stride), dtype(type), inference(in_inference_mode) {}

Cell::~Cell() {
  if (python && python_owned && host_hooks().release_object) host_hooks().release_object(python);
}

namespace {

Tensor make_cell(Ref<Storage> storage, int64_t offset, const Dims& sizes, const Dims& strides, DType dtype) {
  return Tensor(make_ref<Cell>(std::move(storage), offset, sizes, strides, dtype, mode().inference));
}

size_t checked_bytes(int64_t elements, DType dtype) {
  int64_t bytes;
  if (__builtin_mul_overflow(elements, size_of(dtype), &bytes))
    fail<OutOfMemoryError>("a ", name_of(dtype), " tensor of ", elements, " elements does not fit in memory");
  return static_cast<size_t>(bytes);
}

}  // namespace

Tensor Tensor::empty(const Dims& sizes, DType dtype) {
  const size_t bytes = checked_bytes(numel_of(sizes), dtype);
  try {
    return make_cell(Storage::create(bytes), 0, sizes, contiguous_strides(sizes), dtype);
  } catch (const OutOfMemoryError& e) {
    fail<OutOfMemoryError>(e.what(), " (a ", dtype, " tensor of size ", sizes, ")");
  }
}

Tensor Tensor::empty_strided(const Dims& sizes, const Dims& strides, DType dtype) {
  numel_of(sizes);
  const Reach reach(sizes, strides);
  DS_CHECK(reach.first == 0, "strides must not be negative, got ", strides, " for size ", sizes);
  return make_cell(Storage::create(checked_bytes(reach.end, dtype)), 0, sizes, strides, dtype);
}

Tensor Tensor::from_storage(Ref<Storage> storage, const Dims& sizes, const Dims& strides, int64_t offset, DType dtype) {
  return make_cell(std::move(storage), offset, sizes, strides, dtype);
}

Tensor Tensor::meta_only(const Meta& meta, const Dims& strides) {
  return make_cell(nullptr, 0, meta.sizes, strides, meta.dtype);
}

Tensor Tensor::wrapped(const Scalar& value) {
  Tensor t = empty({}, value.dtype());
  value.store(t.data_ptr());
  t.cell()->wrapped_number = true;
  return t;
}

Tensor Tensor::alias(const ViewSpec& spec) const {
  const DType type = spec.dtype.value_or(dtype());
  const int64_t start = offset() * size_of(dtype()) / size_of(type);
  Tensor t = make_cell(storage(), start + spec.offset, spec.sizes, spec.strides, type);
  t.cell()->inference = cell_->inference;  // a view is an inference tensor exactly when its base is
  return t;
}

Tensor Tensor::alias() const { return alias({sizes(), strides(), 0}); }

View Tensor::view_as(const Dims& target) const {
  View v = view();
  if (v.sizes == target) return v;
  const int lead = target.size() - v.sizes.size();
  Dims strides = Dims::filled(target.size(), 0);
  for (int i = 0; i < v.sizes.size(); ++i)
    if (v.sizes[i] == target[i + lead]) strides[i + lead] = v.sizes[i] == 1 ? 0 : v.strides[i];
  v.sizes = target;
  v.strides = strides;
  return v;
}

Scalar Tensor::item() const {
  DS_CHECK(numel() == 1, "a Tensor with ", numel(), " elements cannot be converted to Scalar");
  if (mode().recorder) mode().recorder->record_read(*this);
  return dispatch(dtype(), [&]<class T>() -> Scalar {
    const T value = *data<T>();
    if constexpr (is_small_float<T>)
      return Scalar(static_cast<double>(static_cast<float>(value)));
    else
      return Scalar(value);
  });
}

bool any_requires_grad(Inputs in) {
  for (const Tensor& t : in)
    if (t.defined() && t.requires_grad()) return true;
  return false;
}

bool same_geometry(const Tensor& a, const Tensor& b) {
  return a.storage() == b.storage() && a.offset() == b.offset() && a.dtype() == b.dtype() && a.sizes() == b.sizes() &&
         a.strides() == b.strides();
}

namespace {
// Dims of size > 1 ordered from the smallest stride up.
Dims by_stride(const Dims& sizes, const Dims& strides) {
  Dims order;
  for (int i = 0; i < sizes.size(); ++i)
    if (sizes[i] != 1) order.push_back(i);
  sort_axes(order, [&](int64_t a, int64_t b) { return std::abs(strides[a]) < std::abs(strides[b]); });
  return order;
}
}  // namespace

bool may_overlap_itself(const Dims& sizes, const Dims& strides) {
  if (is_contiguous(sizes, strides)) return false;  // nearly always
  int64_t reach = 0;                                // largest offset reachable with the dims seen so far
  for (int64_t s : sizes)
    if (s == 0) return false;
  for (int64_t d : by_stride(sizes, strides)) {
    if (std::abs(strides[d]) <= reach) return true;
    reach += (sizes[d] - 1) * std::abs(strides[d]);
  }
  return false;
}

bool is_dense(const Dims& sizes, const Dims& strides) {
  int64_t expected = 1;
  for (int64_t s : sizes)
    if (s == 0) return true;
  for (int64_t d : by_stride(sizes, strides)) {
    if (strides[d] != expected) return false;
    expected *= sizes[d];
  }
  return true;
}

namespace {
// Dims from the innermost out, as PyTorch orders the memory of a result: by stride where both have one, a dim that is
// broadcast stays where it is. Such a comparison is no order, so the steps of this insertion sort matter.
Dims memory_order(const Dims& sizes, const Dims& strides) {
  const auto compare = [&](int64_t a, int64_t b) {
    if (strides[a] == 0 || strides[b] == 0) return 0;
    if (strides[a] != strides[b]) return std::abs(strides[a]) < std::abs(strides[b]) ? -1 : 1;
    return sizes[a] > sizes[b] ? 1 : 0;
  };
  Dims order;
  for (int d = sizes.size() - 1; d >= 0; --d) order.push_back(d);
  for (int i = 1; i < order.size(); ++i) {
    int at = i;
    for (int other = i - 1; other >= 0; --other) {
      const int c = compare(order[other], order[at]);
      if (c < 0) break;
      if (c == 0) continue;
      std::swap(order[other], order[at]);
      at = other;
    }
  }
  return order;
}
}  // namespace

Dims preserved_strides(const Dims& sizes, const Dims& strides) {
  if (is_contiguous(sizes, strides)) return contiguous_strides(sizes);
  if (!is_dense(sizes, strides)) {
    Dims out = strides;
    int64_t next = 1;
    for (const int64_t d : memory_order(sizes, strides)) {
      out[d] = next;
      next = wrapping_product(next, std::max<int64_t>(sizes[d], 1));
    }
    return out;
  }
  Dims out = contiguous_strides(sizes);
  int64_t next = 1;
  for (int64_t d : by_stride(sizes, strides)) {
    out[d] = next;
    next *= sizes[d];
  }
  return out;
}

// --- gradient bookkeeping

bool Tensor::is_leaf() const {
  const GradMeta* m = cell_->grad_meta.get();
  if (!m) return true;
  if (m->base.defined()) edge();  // refreshes a stale view
  return !m->edge.node;
}

bool Tensor::requires_grad() const {
  const GradMeta* m = cell_->grad_meta.get();
  if (!m) return cell_->requires_grad;
  return cell_->requires_grad || m->edge.node || (m->base.defined() && m->base.requires_grad());
}

Edge Tensor::edge() const {
  GradMeta* m = cell_->grad_meta.get();
  if (m && m->base.defined()) {
    // Also when the base was detached since: what the view shows now does not come from where its old edge leads.
    if (m->view_version != version() && (m->edge.node || m->base.requires_grad())) {
      set_edge(*this, autograd_hooks().rederive_view(*this, m->base));
    }
  }
  if (m && m->edge.node) return m->edge;
  if (!cell_->requires_grad) return {};
  GradMeta& meta = grad_meta(*this);
  if (!meta.accumulator) {
    Ref<Node> node = autograd_hooks().make_accumulator(*this);
    meta.accumulator = node.get();
    return {std::move(node), 0};
  }
  return {Ref<Node>(meta.accumulator), 0};
}

Tensor Tensor::grad() const { return cell_->grad_meta ? cell_->grad_meta->grad : Tensor(); }

GradMeta& grad_meta(const Tensor& t) {
  if (!t.cell()->grad_meta) t.cell()->grad_meta = make_ref<GradMeta>();
  return *t.cell()->grad_meta;
}

void set_edge(const Tensor& t, Edge edge) {
  GradMeta& m = grad_meta(t);
  if (m.retain_hook && m.edge.node && edge.node) {
    std::vector<HookEntry>& old = m.edge.node->hooks;
    const auto entry = std::ranges::find(old, m.retain_hook, &HookEntry::id);
    if (entry != old.end()) {
      edge.node->hooks.push_back({entry->id, edge.index, std::move(entry->hook), true});
      old.erase(entry);
    }
  }
  m.edge = std::move(edge);
  m.view_version = t.has_data() ? t.version() : 0;
}

Ref<WeakCell> weak_cell(const Tensor& t) {
  GradMeta& m = grad_meta(t);
  if (!m.weak) {
    m.weak = make_ref<WeakCell>();
    m.weak->cell = t.cell();
  }
  return m.weak;
}

// --- nodes

namespace {
std::atomic<uint64_t> g_sequence{0};
}
uint64_t Node::next_sequence() { return g_sequence.fetch_add(1, std::memory_order_relaxed); }
uint64_t Node::newest_sequence() { return g_sequence.load(std::memory_order_relaxed); }

Node::~Node() = default;

void Node::run_hooks(TensorList& grads) {
  if (hooks.empty()) return;
  const std::vector<HookEntry> now = hooks;  // a hook may remove itself
  for (const bool retains : {false, true}) {
    for (const HookEntry& h : now) {
      if (h.retains != retains || h.index >= grads.size() || !grads[h.index].defined()) continue;
      if (Tensor replaced = h.hook->call(grads[h.index]); replaced.defined()) grads[h.index] = replaced;
    }
  }
}

void Destroy<Node>::run(Node* node) {
  static thread_local std::vector<Node*>* pending = nullptr;
  if (pending) {
    pending->push_back(node);
    return;
  }
  std::vector<Node*> work{node};
  pending = &work;
  while (!work.empty()) {
    Node* n = work.back();
    work.pop_back();
    delete n;
  }
  pending = nullptr;
}

Snapshot::Snapshot(const Tensor& t, bool with_data) {
  if (!t.defined()) return;
  defined_ = true;
  with_data_ = with_data;
  offset_ = t.offset();
  sizes_ = t.sizes();
  strides_ = t.strides();
  dtype_ = t.dtype();
  if (!with_data) return;
  if (SavingHooks* hooks = mode().saving) {
    const GradGuard off(false);
    const SavingPause pause;  // what the hooks compute is not for them
    const uint32_t before = t.version();
    stored_ = hooks->store(t.alias());
    DS_CHECK(t.version() == before, "a pack hook must not write the tensor it is given; write to a clone() of it");
    return;
  }
  storage_ = t.storage();
  version_ = storage_->version();
}

Tensor Snapshot::unpack(const char* op) const {
  if (!defined_) return {};
  if (!with_data_) return Tensor::meta_only({dtype_, sizes_}, strides_);
  DS_CHECK(storage_ || stored_,
           "Trying to backward through the graph a second time (or directly access saved tensors after they have "
           "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
           "autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time. (op: ",
           op, ")");
  if (stored_) {
    const Tensor t = stored_->restore();
    DS_CHECK(t.defined() && t.sizes() == sizes_ && t.dtype() == dtype_, op,
             ": the unpack hook must return what was saved, ", name_of(dtype_), " ", sizes_, ", got ",
             t.defined() ? name_of(t.dtype()) : "None", " ", t.defined() ? t.sizes() : Dims());
    return t.alias();
  }
  DS_CHECK(storage_->version() == version_,
           "one of the variables needed for gradient computation has been modified by an inplace operation: [", dtype_,
           " ", sizes_, "], saved by ", op, ", is at version ", storage_->version(), "; expected version ", version_,
           " instead. Write to a clone() of it, or after backward().");
  // A Python number comes back as a plain 0-d tensor: as a wrapped one, log(2.0) would round to the default dtype.
  return Tensor::from_storage(storage_, sizes_, strides_, offset_, dtype_);
}

AutogradHooks& autograd_hooks() {
  static AutogradHooks hooks;
  return hooks;
}
HostHooks& host_hooks() {
  static HostHooks hooks;
  return hooks;
}

namespace {
DType g_default_dtype = DType::kFloat32;
}
DType default_dtype() { return g_default_dtype; }
void set_default_dtype(DType t) {
  DS_CHECK_AS(TypeError, is_floating(t) && !is_float8(t),
              "only floating-point types are supported as the default type, got ", name_of(t));
  g_default_dtype = t;
}

}  // namespace deepseek
