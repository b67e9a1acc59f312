// Tensor: a counted reference to a cell {storage, view, gradient edge}. One cell is one Python object while that object
// lives.
#pragma once

#include <optional>

#include "base/scalar.h"
#include "base/small_vector.h"
#include "base/view.h"
#include "core/storage.h"

namespace deepseek {

class Node;
class Tensor;
struct GradMeta;

// Output `index` of `node`: where a gradient is sent.
struct Edge {
  Ref<Node> node;
  uint32_t index = 0;
};

struct Meta {
  DType dtype = DType::kFloat32;
  Dims sizes;
  Dims strides = {};  // of the result; contiguous when their number differs from sizes'
};

// Sizes, strides and element offset relative to the start of the viewed tensor; all in elements of `dtype`, which is
// the viewed tensor's where it is not given. The start lies on one of its elements.
struct ViewSpec {
  Dims sizes;
  Dims strides;
  int64_t offset = 0;
  std::optional<DType> dtype = {};
};

struct Cell : Counted {
  Cell(Ref<Storage> storage, int64_t offset, const Dims& sizes, const Dims& strides, DType dtype, bool inference);
  ~Cell();
  static void* operator new(size_t n) { return allocate(n); }
  static void operator delete(void* p, size_t n) { deallocate(p, n); }

  Ref<Storage> storage;  // null: only sizes and dtype are known (an input a vjp did not ask to save)
  int64_t offset = 0;    // in elements
  Dims sizes;
  Dims strides;
  DType dtype = DType::kFloat32;
  bool requires_grad = false;   // leaves only; see Tensor::requires_grad()
  bool wrapped_number = false;  // a Python number: weakest in type promotion
  bool inference = false;       // made in inference_mode
  bool python_owned = false;    // this cell keeps `python` alive, not the other way round
  Ref<GradMeta> grad_meta;
  void* python = nullptr;  // the Python object of this cell
};

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Ref<Cell> cell) : cell_(std::move(cell)) {}

  static Tensor empty(const Dims& sizes, DType dtype);
  static Tensor empty_strided(const Dims& sizes, const Dims& strides, DType dtype);
  static Tensor from_storage(Ref<Storage> storage, const Dims& sizes, const Dims& strides, int64_t offset, DType dtype);
  static Tensor meta_only(const Meta& meta, const Dims& strides);
  // A Python number: 0-d, weakest in type promotion.
  static Tensor wrapped(const Scalar& value);
  // Another cell on the same memory, with no gradient history.
  Tensor alias(const ViewSpec& spec) const;
  Tensor alias() const;

  bool defined() const { return static_cast<bool>(cell_); }
  bool has_data() const { return defined() && static_cast<bool>(cell_->storage); }
  Cell* cell() const { return cell_.get(); }
  const Ref<Cell>& ref() const { return cell_; }
  // Another handle without a count of its own, for a call that `owner` outlives. It must be forgotten, not destroyed.
  static Tensor borrow(Cell* owner) { return Tensor(Ref<Cell>::adopt(owner)); }
  void forget() { cell_.release(); }
  bool is(const Tensor& o) const { return cell_.get() == o.cell_.get(); }

  const Dims& sizes() const { return cell_->sizes; }
  const Dims& strides() const { return cell_->strides; }
  DType dtype() const { return cell_->dtype; }
  Meta meta() const { return {cell_->dtype, cell_->sizes}; }
  int dim() const { return cell_->sizes.size(); }
  int64_t size(int64_t d) const { return cell_->sizes[wrap_dim("size", d, dim())]; }
  int64_t offset() const { return cell_->offset; }
  int64_t numel() const { return numel_of(cell_->sizes); }
  int64_t nbytes() const { return numel() * size_of(dtype()); }
  bool is_contiguous() const { return deepseek::is_contiguous(cell_->sizes, cell_->strides); }
  const Ref<Storage>& storage() const { return cell_->storage; }
  uint32_t version() const { return cell_->storage->version(); }

  void* data_ptr() const { return static_cast<char*>(cell_->storage->data()) + cell_->offset * size_of(cell_->dtype); }
  template <class T>
  T* data() const {
    return static_cast<T*>(data_ptr());
  }
  View view() const { return {data_ptr(), cell_->dtype, cell_->sizes, cell_->strides}; }
  // This tensor as if broadcast to `sizes` (stride 0), for kernels.
  View view_as(const Dims& sizes) const;
  // The value of a one-element tensor.
  Scalar item() const;
  template <class T>
  T item() const {
    return item().to<T>();
  }

  // What backward() left here; undefined before it, and after zero_grad().
  Tensor grad() const;
  bool requires_grad() const;
  bool is_leaf() const;
  // Where gradients of this tensor go; empty when it needs none. Creates the accumulator of a leaf, re-derives stale
  // views.
  Edge edge() const;

 private:
  Ref<Cell> cell_;
};

using TensorList = SmallVector<Tensor, 4>;
using Inputs = std::span<const Tensor>;

// The arguments of one call side by side, without counting references: the caller holds them.
template <size_t N>
class BorrowedInputs {
 public:
  template <class... T>
  explicit BorrowedInputs(const T&... t) : tensors_{Tensor::borrow(t.cell())...} {}
  ~BorrowedInputs() {
    for (Tensor& t : tensors_) t.forget();
  }
  BorrowedInputs(const BorrowedInputs&) = delete;
  operator Inputs() const { return {tensors_, N}; }

 private:
  Tensor tensors_[N > 0 ? N : 1];
};

bool any_requires_grad(Inputs in);
bool same_geometry(const Tensor& a, const Tensor& b);
// True when two different indices of the tensor may be the same memory (a stride of 0, overlapping windows).
bool may_overlap_itself(const Dims& sizes, const Dims& strides);
// True when the elements fill one gapless block in some order of the dims.
bool is_dense(const Dims& sizes, const Dims& strides);
// Strides of a fresh dense tensor that keeps the order of the dims in memory.
Dims preserved_strides(const Dims& sizes, const Dims& strides);

}  // namespace deepseek
