// The Tensor type: object life and attributes. One cell is one Python object while that object lives; an object
// with attributes, weak references or a subclass survives (owned by its cell) as long as the cell does.
#include <algorithm>
#include <array>
#include <bit>

#include "autograd/engine.h"
#include "core/dispatch/autocast.h"
#include "core/dispatch/recorder.h"
#include "python/collect.h"
#include "python/slots.h"
#include "python/subclass.h"
#include "python/tensor_operators.h"

namespace deepseek::python {

PyTypeObject* tensor_type = nullptr;

namespace {

TensorObject* object(PyObject* self) { return reinterpret_cast<TensorObject*>(self); }

// --- life

bool worth_keeping(TensorObject* t) {
  return t->dict != nullptr || t->weakrefs != nullptr || Py_TYPE(t) != tensor_type;
}

// The collector's per-object header, to let an object be finalised more than once.
struct GcHead {
  uintptr_t next, prev;
};
void clear_finalized(PyObject* self) { (reinterpret_cast<GcHead*>(self) - 1)->prev &= ~uintptr_t{1}; }

// Objects of plain tensors that died, for the next ones: most calls make one and drop one. Behind the interpreter lock.
struct FreeObjects {
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int kMost = 0;  // uses after death are to be seen
#else
  static constexpr int kMost = 64;
#endif
  PyObject* kept[kMost + 1];
  int count = 0;

  void keep(PyObject* o) {
    clear_finalized(o);
    kept[count++] = o;
    Py_DECREF(tensor_type);
  }
  PyObject* take() {
    PyObject* o = PyObject_Init(kept[--count], tensor_type);
    object(o)->dict = object(o)->weakrefs = nullptr;
    PyObject_GC_Track(o);
    return o;
  }
};
FreeObjects free_objects;

// Called when the last Python reference goes: if C++ still holds the cell, the cell takes ownership of the object.
void tensor_finalize(PyObject* self) {
  TensorObject* t = object(self);
  if (!t->cell || t->cell->python_owned || t->cell->use_count() <= 1 || !worth_keeping(t)) return;
  set_python_owned(*t->cell, true);
  t->cell->drop();
  Py_INCREF(self);
  clear_finalized(self);
}

void tensor_dealloc(PyObject* self) {
  TensorObject* t = object(self);
  if (is_exact_tensor(self) && t->cell && worth_keeping(t) && PyObject_CallFinalizerFromDealloc(self) < 0) return;
  PyObject_GC_UnTrack(self);
  if (t->weakrefs) PyObject_ClearWeakRefs(self);
  Py_CLEAR(t->dict);
  if (Cell* cell = std::exchange(t->cell, nullptr)) {
    const bool counted = !cell->python_owned;
    cell->python = nullptr;
    set_python_owned(*cell, false);
    if (counted) Ref<Cell>::adopt(cell).reset();
  }
  PyTypeObject* type = Py_TYPE(self);
  if (type == tensor_type && free_objects.count < FreeObjects::kMost) return free_objects.keep(self);
  type->tp_free(self);
  Py_DECREF(type);
}

// A cell of its own, with what `dying` had, for an object that outlives it, be it for the length of its __del__.
Cell* successor(Cell& dying, PyObject* self) {
  auto* cell =
      new Cell(std::move(dying.storage), dying.offset, dying.sizes, dying.strides, dying.dtype, dying.inference);
  cell->requires_grad = dying.requires_grad;
  cell->grad_meta = std::move(dying.grad_meta);
  if (cell->grad_meta && cell->grad_meta->weak) cell->grad_meta->weak->cell = cell;
  cell->python = self;
  cell->retain_fresh();
  return cell;
}

// A dying cell drops the object it owns.
void release_owned_object(void* p) {
  PyObject* self = static_cast<PyObject*>(p);
  if (!Py_IsInitialized()) {
    object(self)->cell = nullptr;  // the collector still visits the object while Python shuts down
    return;
  }
  const InterpreterLock lock;
  --python_holders;
  object(self)->cell = successor(*object(self)->cell, self);  // a subclass's __del__ may look at it
  Py_DECREF(self);
}

int tensor_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(object(self)->dict);
  TapeVisit tape(visit, arg);
  tape.cell(object(self)->cell);
  return tape.finish();
}

int tensor_clear(PyObject* self) {
  TensorObject* t = object(self);
  Py_CLEAR(t->dict);
  // What traverse has shown. Nobody else holds the cell, so nobody misses the gradient's way; a destructor may run any
  // code.
  if (t->cell && t->cell->use_count() == 1) const Ref<GradMeta> dropped = std::move(t->cell->grad_meta);
  return 0;
}

// Tensor(data) or Tensor(2, 3): the legacy constructor, float32.
PyObject* tensor_new(PyTypeObject* type, PyObject* args, PyObject*) {
  const Py_ssize_t n = PyTuple_GET_SIZE(args);
  Dims sizes;
  Tensor t;
  if (n == 0) {
    t = Tensor::empty({0}, default_dtype());
  } else if (n == 1 && is_tensor(PyTuple_GET_ITEM(args, 0))) {
    t = detach(unwrap(PyTuple_GET_ITEM(args, 0)));
  } else if (n >= 1 && PyLong_Check(PyTuple_GET_ITEM(args, 0)) && to_dims(args, sizes)) {
    t = Tensor::empty(sizes, default_dtype());
  } else {
    t = tensor_from_data(PyTuple_GET_ITEM(args, 0), Opt<DType>(default_dtype()));
  }
  return wrap_as(type, t);
}

// --- attributes

PyObject* get_dict(PyObject* self) { return checked(PyObject_GenericGetDict(self, nullptr)); }
int set_dict(PyObject* self, PyObject* value) { return PyObject_GenericSetDict(self, value, nullptr); }

PyObject* get_shape(PyObject* self) { return make_size(cell_of(self).sizes); }
PyObject* get_dtype(PyObject* self) { return wrap_dtype(cell_of(self).dtype); }
PyObject* get_ndim(PyObject* self) { return PyLong_FromLong(cell_of(self).sizes.size()); }
PyObject* get_requires_grad(PyObject* self) { return PyBool_FromLong(unwrap(self).requires_grad()); }
PyObject* get_is_leaf(PyObject* self) { return PyBool_FromLong(unwrap(self).is_leaf()); }
PyObject* get_itemsize(PyObject* self) { return PyLong_FromLongLong(size_of(cell_of(self).dtype)); }
PyObject* get_nbytes(PyObject* self) {
  const Tensor t = unwrap(self);
  int64_t bytes;
  DS_CHECK(!__builtin_mul_overflow(t.numel(), size_of(t.dtype()), &bytes), "nbytes: the bytes of a ",
           name_of(t.dtype()), " tensor of size ", t.sizes(), " overflow int64");
  return PyLong_FromLongLong(bytes);
}
PyObject* get_version(PyObject* self) {
  refuse_capture("a tensor's version is read");
  return PyLong_FromUnsignedLong(unwrap(self).version());
}
PyObject* get_retains_grad(PyObject* self) {
  const Cell& c = cell_of(self);
  return PyBool_FromLong(c.grad_meta && c.grad_meta->retain_hook);
}
PyObject* get_is_inference(PyObject* self) { return PyBool_FromLong(cell_of(self).inference); }
PyObject* get_base(PyObject* self) {
  const Cell& c = cell_of(self);
  return wrap(c.grad_meta ? c.grad_meta->base : Tensor());
}
PyObject* get_T(PyObject* self) {
  const Tensor t = unwrap(self);
  Dims order;
  for (int i = t.dim() - 1; i >= 0; --i) order.push_back(i);
  return wrap(permute(t, order), result_class(self));
}
PyObject* get_mT(PyObject* self) {
  const Tensor t = unwrap(self);
  DS_CHECK(t.dim() >= 2, "tensor.mT is only supported on matrices or batches of matrices. Got ", t.dim(), "-D tensor.");
  return wrap(transpose(t, -2, -1), result_class(self));
}
PyObject* get_grad(PyObject* self) {
  const Tensor t = unwrap(self);
  const GradMeta* m = t.cell()->grad_meta.get();
  if (m && !m->grad.defined() && !m->retain_hook && !t.is_leaf() &&
      PyErr_WarnEx(PyExc_UserWarning,
                   "The .grad of a tensor that is not a leaf is being read; backward() fills it only after "
                   "retain_grad() was called on the tensor",
                   1) < 0)
    throw PythonError();
  const Tensor g = m ? m->grad : Tensor();
  if (mode().recorder) mode().recorder->record_get_grad(t, g);
  return wrap(g);
}
PyObject* get_data(PyObject* self) { return wrap(detach(unwrap(self)), result_class(self)); }

int set_grad(PyObject* self, PyObject* value) {
  const Tensor t = unwrap(self);
  if (!value || value == Py_None) {
    if (t.cell()->grad_meta) t.cell()->grad_meta->grad = Tensor();
    if (mode().recorder) mode().recorder->record_set_grad(t, Tensor());
    return 0;
  }
  DS_CHECK_AS(TypeError, is_tensor(value), "assigned grad expected to be a Tensor or None but got grad of type ",
              type_name(value));
  const Tensor g = unwrap(value);
  DS_CHECK(!g.is(t), "can't assign Variable as its own grad");
  DS_CHECK(g.dtype() == t.dtype(), "assigned grad has data of a different type: ", name_of(g.dtype()),
           " for a tensor of ", name_of(t.dtype()));
  DS_CHECK(g.sizes() == t.sizes(), "assigned grad has data of a different size: ", g.sizes(), " for a tensor of size ",
           t.sizes());
  grad_meta(t).grad = g;
  if (mode().recorder) mode().recorder->record_set_grad(t, g);
  return 0;
}

int set_data(PyObject* self, PyObject* value) {
  DS_CHECK_AS(TypeError, value && is_tensor(value), "Variable data has to be a tensor");
  const Tensor t = unwrap(self), v = unwrap(value);
  refuse_capture("a tensor's .data is assigned");
  Cell& c = *t.cell();
  c.storage = v.storage();
  c.offset = v.offset();
  c.sizes = v.sizes();
  c.strides = v.strides();
  c.dtype = v.dtype();
  drop_kept_casts(t);
  return 0;
}

int set_requires_grad_attr(PyObject* self, PyObject* value) {
  DS_CHECK_AS(TypeError, value && PyBool_Check(value), "requires_grad must be a bool");
  set_requires_grad(unwrap(self), value == Py_True);
  return 0;
}

Attribute attributes[] = {
    attribute<get_dict, set_dict>("__dict__", nullptr),
    attribute<get_shape>("shape", "Size of each dimension."),
    attribute<get_dtype>("dtype", "Element type."),
    attribute<get_ndim>("ndim", "Number of dimensions."),
    attribute<get_requires_grad, set_requires_grad_attr>("requires_grad", "Whether gradients flow to this tensor."),
    attribute<get_is_leaf>("is_leaf", "True for tensors not made by a recorded op."),
    attribute<get_grad, set_grad>("grad", "Gradient accumulated by backward(), or None."),
    attribute<get_data, set_data>("data", "The same memory outside the graph; assigning swaps the memory."),
    attribute<get_itemsize>("itemsize", "Bytes an element."),
    attribute<get_nbytes>("nbytes", "Bytes of all elements."),
    attribute<get_version>("_version", "Number of in-place writes to this memory."),
    attribute<get_base>("_base", "The tensor this is a differentiable view of, or None."),
    attribute<get_retains_grad>("retains_grad", "True after retain_grad() on a non-leaf."),
    attribute<get_is_inference>("_is_inference", "Made in inference_mode."),
    attribute<get_T>("T", "All dims reversed."),
    attribute<get_mT>("mT", "The last two dims swapped."),
    {},
};

// --- plain methods

PyObject* m_dim(PyObject* self) { return PyLong_FromLong(cell_of(self).sizes.size()); }
PyObject* m_numel(PyObject* self) { return PyLong_FromLongLong(unwrap(self).numel()); }
PyObject* m_item(PyObject* self) { return item(unwrap(self)); }
PyObject* m_data_ptr(PyObject* self) {
  refuse_capture("data_ptr() is read");
  unwrap(self).storage()->expose();
  return PyLong_FromVoidPtr(unwrap(self).data_ptr());
}
PyObject* m_storage_offset(PyObject* self) { return PyLong_FromLongLong(cell_of(self).offset); }
PyObject* m_is_contiguous(PyObject* self) { return PyBool_FromLong(unwrap(self).is_contiguous()); }
PyObject* m_element_size(PyObject* self) { return PyLong_FromLongLong(size_of(cell_of(self).dtype)); }
PyObject* m_storage_ptr(PyObject* self) {
  refuse_capture("the address of a tensor's memory is read");
  return PyLong_FromVoidPtr(cell_of(self).storage->data());
}
PyObject* m_storage_nbytes(PyObject* self) { return PyLong_FromSize_t(cell_of(self).storage->bytes()); }
PyObject* m_is_view(PyObject* self) {
  return PyBool_FromLong(cell_of(self).grad_meta && cell_of(self).grad_meta->base.defined());
}
PyObject* m_is_floating_point(PyObject* self) { return PyBool_FromLong(is_floating(cell_of(self).dtype)); }
PyObject* m_retain_grad(PyObject* self) {
  retain_grad(unwrap(self));
  Py_RETURN_NONE;
}
PyObject* m_detach_(PyObject* self) {
  const Tensor t = unwrap(self);
  DS_CHECK(!(t.cell()->grad_meta && t.cell()->grad_meta->base.defined()),
           "Can't detach views in-place. Use detach() instead.");
  refuse_capture("a tensor is detached in place");
  if (t.cell()->grad_meta) t.cell()->grad_meta->edge = {};
  t.cell()->requires_grad = false;
  Py_INCREF(self);
  return self;
}

PyObject* m_size(PyObject* self, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs == 0 || args[0] == Py_None) return make_size(cell_of(self).sizes);
  int64_t d;
  DS_CHECK_AS(TypeError, to_int(args[0], d), "size(): dim must be an int, got ", type_name(args[0]));
  const Cell& c = cell_of(self);
  DS_CHECK_AS(IndexError, c.sizes.size() > 0, "Dimension specified as ", d, " but tensor has no dimensions");
  return PyLong_FromLongLong(c.sizes[wrap_dim("size", d, c.sizes.size())]);
}

PyObject* m_stride(PyObject* self, PyObject* const* args, Py_ssize_t nargs) {
  const Cell& c = cell_of(self);
  if (nargs == 0 || args[0] == Py_None) {
    Object out = owned(PyTuple_New(c.strides.size()));
    for (int i = 0; i < c.strides.size(); ++i)
      PyTuple_SET_ITEM(out.get(), i, checked(PyLong_FromLongLong(c.strides[i])));
    return out.release();
  }
  int64_t d;
  DS_CHECK_AS(TypeError, to_int(args[0], d), "stride(): dim must be an int");
  return PyLong_FromLongLong(c.strides[wrap_dim("stride", d, c.strides.size())]);
}

// Arguments by position or name; those not given are null.
template <size_t N>
std::array<PyObject*, N> named_arguments(const char* function, const std::array<const char*, N>& names,
                                         PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  std::array<PyObject*, N> out{};
  DS_CHECK_AS(TypeError, nargs <= static_cast<Py_ssize_t>(N), function, "() takes at most ", N, " arguments, got ",
              nargs);
  std::copy(args, args + nargs, out.begin());
  for (Py_ssize_t k = 0; kwnames && k < PyTuple_GET_SIZE(kwnames); ++k) {
    const std::string_view name = utf8(PyTuple_GET_ITEM(kwnames, k));
    const size_t at = std::ranges::find(names, name) - names.begin();
    DS_CHECK_AS(TypeError, at < N && !out[at], function, "() got ",
                at < N ? "multiple values for" : "an unexpected keyword", " argument '", name, "'");
    out[at] = args[nargs + k];
  }
  return out;
}

PyObject* m_requires_grad_(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  const auto [value] = named_arguments<1>("requires_grad_", {"requires_grad"}, args, nargs, kwnames);
  const bool on = !value || is_true(value);
  set_requires_grad(unwrap(self), on);
  return Py_NewRef(self);
}

PyObject* m_copy_(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  // Every copy is done when copy_ returns, whatever non_blocking is.
  const auto [source, unused] = named_arguments<2>("copy_", {"src", "non_blocking"}, args, nargs, kwnames);
  DS_CHECK_AS(TypeError, source, "copy_() missing 1 required positional argument: 'src'");
  copy_(unwrap(self), is_tensor(source) ? unwrap(source) : number_tensor(source));
  return Py_NewRef(self);
}

// Tensor._make_subclass(cls, data, require_grad=False)
PyObject* make_subclass(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  const auto [type, data, grad] =
      named_arguments<3>("_make_subclass", {"cls", "data", "require_grad"}, args, nargs, kwnames);
  DS_CHECK_AS(TypeError, type && PyType_Check(type) && data && is_tensor(data),
              "_make_subclass(cls, data, require_grad=False)");
  auto* subclass = reinterpret_cast<PyTypeObject*>(type);
  DS_CHECK_AS(TypeError, PyType_IsSubtype(subclass, tensor_type), "_make_subclass: ", subclass->tp_name,
              " is no subclass of Tensor");
  const Tensor t = unwrap(data).alias();
  if (grad) set_requires_grad(t, is_true(grad));
  return wrap_as(subclass, t);
}

Method methods[] = {
    method<m_dim>("dim", "Number of dimensions."),
    method<m_dim>("ndimension", "Number of dimensions."),
    method<m_numel>("numel", "Number of elements."),
    method<m_numel>("nelement", "Number of elements."),
    method<m_item>("item", "The value of a one-element tensor as a Python number."),
    method<m_data_ptr>("data_ptr", "Address of the first element."),
    method<m_storage_offset>("storage_offset", "Offset into the storage, in elements."),
    method<m_element_size>("element_size", "Bytes an element."),
    method<m_storage_ptr>("_storage_ptr", "Address of the storage."),
    method<m_storage_nbytes>("_storage_nbytes", "Bytes of the storage."),
    method<m_is_view>("_is_view", "True for a differentiable view of another tensor."),
    method<m_is_floating_point>("is_floating_point", "True for floating dtypes."),
    method<m_retain_grad>("retain_grad", "Keep .grad for this non-leaf tensor."),
    method<m_detach_>("detach_", "Cut this tensor from its graph."),
    method<m_is_contiguous>("_is_contiguous", "True for row-major memory without gaps."),
    method<m_size>("size", "(dim=None) Sizes, or the size of one dim."),
    method<m_stride>("stride", "(dim=None) Strides in elements, or the stride of one dim."),
    method<m_requires_grad_>("requires_grad_", "(requires_grad=True) Set requires_grad in place."),
    method<m_copy_>("copy_",
                    "(src, non_blocking=False) Overwrite with another tensor's values (broadcast, converted)."),
    static_method<make_subclass>("_make_subclass", "A subclass object on data's memory."),
    {},
};

Py_hash_t tensor_hash(PyObject* self) {
  return static_cast<Py_hash_t>(std::rotr(reinterpret_cast<uintptr_t>(self), 4));
}

Py_ssize_t tensor_len(PyObject* self) {
  const Cell& c = cell_of(self);
  DS_CHECK_AS(TypeError, c.sizes.size() > 0, "len() of a 0-d tensor");
  return c.sizes[0];
}

PyMemberDef members[] = {
    offset_member("__dictoffset__", offsetof(TensorObject, dict)),
    offset_member("__weaklistoffset__", offsetof(TensorObject, weakrefs)),
    {},
};

}  // namespace

PyObject* wrap_as(PyTypeObject* type, Tensor t) {
  Cell* cell = t.cell();
  DS_CHECK(!cell->python, "internal error: this tensor already has a Python object");
  auto* object = reinterpret_cast<TensorObject*>(
      type == tensor_type && free_objects.count > 0 ? free_objects.take() : checked(type->tp_alloc(type, 0)));
  t.forget();  // its count is the object's now
  object->cell = cell;
  cell->python = object;
  cell->python_owned = false;
  cell->wrapped_number = false;  // what Python sees is an ordinary 0-d tensor
  return reinterpret_cast<PyObject*>(object);
}

PyObject* wrap(Tensor t, PyTypeObject* type) {
  if (!t.defined()) Py_RETURN_NONE;
  Cell* cell = t.cell();
  if (!cell->python) {
    if (mode().recorder) mode().recorder->record_wrapped(t);
    return wrap_as(type, std::move(t));
  }
  auto* object = static_cast<PyObject*>(cell->python);
  if (cell->python_owned) {  // the cell's reference becomes the caller's, and the object holds the cell again
    set_python_owned(*cell, false);
    cell->retain();
    return object;
  }
  Py_INCREF(object);
  return object;
}

PyObject* wrap_list(const TensorList& list, bool as_tuple, PyTypeObject* type) {
  const auto n = static_cast<Py_ssize_t>(list.size());
  Object out = owned(as_tuple ? PyTuple_New(n) : PyList_New(n));
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (as_tuple)
      PyTuple_SET_ITEM(out.get(), i, wrap(list[i], type));
    else
      PyList_SET_ITEM(out.get(), i, wrap(list[i], type));
  }
  return out.release();
}

void bind_tensor(PyObject* m) {
  std::vector<Slot> slots = {
      slot<Py_tp_new, tensor_new>(),
      slot<Py_tp_dealloc, tensor_dealloc>(),
      slot<Py_tp_finalize, tensor_finalize>(),
      slot<Py_tp_traverse, tensor_traverse>(),
      slot<Py_tp_clear, tensor_clear>(),
      slot<Py_tp_hash, tensor_hash>(),
      slot<Py_mp_length, tensor_len>(),
      slot<Py_mp_subscript, tensor_getitem>(),
      slot<Py_mp_ass_subscript, tensor_setitem>(),
      slot(attributes),
      slot(methods),
      slot(members),
      slot("A multi-dimensional array on the CPU with automatic differentiation."),
  };
  add_operators(slots);
  // What Python needs to say that a method of PyTorch's is not implemented yet (python/deepseek/_binding/install.py): a
  // base class that holds such names, so that Tensor's own members stay what they are, and a metatype whose __dir__
  // leaves them out.
  constexpr unsigned kOpen = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE;
  const auto one = [](PyTypeObject* type) { return tuple_of(reinterpret_cast<PyObject*>(type)); };
  PyTypeObject* names = new_type("deepseek.TensorNames", 0, kOpen, {slot("Names that Tensor has not.")});
  PyTypeObject* metatype =
      new_type("deepseek.TensorType", 0, kOpen, {slot("The type of Tensor.")}, one(&PyType_Type).get());
  tensor_type = new_type("deepseek.Tensor", sizeof(TensorObject), kOpen | Py_TPFLAGS_HAVE_GC, slots, one(names).get());
  add_to_module(m, "_TensorType", Object::borrow(reinterpret_cast<PyObject*>(metatype)));
  Py_SET_TYPE(reinterpret_cast<PyObject*>(tensor_type), metatype);  // this reference keeps it alive
  add_to_module(m, "Tensor", Object::borrow(reinterpret_cast<PyObject*>(tensor_type)));
  host_hooks().release_object = release_owned_object;
}

}  // namespace deepseek::python
