// The Tensor type: object life and attributes. One cell is one Python object while that object lives; an object
// with attributes, weak references or a subclass survives (owned by its cell) as long as the cell does.
#include "python/python.h"
// After Python.h:
#include <structmember.h>

#include "autograd/engine.h"
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

  void keep(PyObject* o) {  // its count of the type stays
    clear_finalized(o);
    kept[count++] = o;
  }
  PyObject* take() {
    PyObject* o = kept[--count];
    object(o)->dict = object(o)->weakrefs = nullptr;
    _Py_NewReference(o);
    PyObject_GC_Track(o);
    return o;
  }
};
FreeObjects free_objects;

// Called when the last Python reference goes: if C++ still holds the cell, the cell takes ownership of the object.
void tensor_finalize(PyObject* self) {
  TensorObject* t = object(self);
  if (!t->cell || t->cell->python_owned || t->cell->use_count() <= 1 || !worth_keeping(t)) return;
  t->cell->python_owned = true;
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
    cell->python_owned = false;
    if (counted) Ref<Cell>::adopt(cell).reset();
  }
  PyTypeObject* type = Py_TYPE(self);
  if (type == tensor_type && free_objects.count < FreeObjects::kMost) return free_objects.keep(self);
  type->tp_free(self);
  Py_DECREF(type);
}

// A cell of its own, with what `dying` had, for an object that somebody got from a weak reference meanwhile.
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
  const PyGILState_STATE state = PyGILState_Ensure();
  object(self)->cell = Py_REFCNT(self) > 1 ? successor(*object(self)->cell, self) : nullptr;
  Py_DECREF(self);
  PyGILState_Release(state);
}

int tensor_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  TensorObject* t = object(self);
  Py_VISIT(t->dict);
  // Hooks belong to this object only if nobody else holds the cell.
  if (t->cell && t->cell->use_count() == 1 && t->cell->grad_meta) {
    for (const auto* list : {&t->cell->grad_meta->leaf_hooks, &t->cell->grad_meta->post_accumulate_hooks})
      for (const HookEntry& h : *list) Py_VISIT(static_cast<PyObject*>(h.hook->python()));
  }
  return 0;
}

int tensor_clear(PyObject* self) {
  TensorObject* t = object(self);
  Py_CLEAR(t->dict);
  if (t->cell && t->cell->grad_meta) {
    t->cell->grad_meta->leaf_hooks.clear();
    t->cell->grad_meta->post_accumulate_hooks.clear();
  }
  return 0;
}

// Tensor(data) or Tensor(2, 3): the legacy constructor, float32.
PyObject* tensor_new(PyTypeObject* type, PyObject* args, PyObject*) {
  return guarded([&]() -> PyObject* {
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
  });
}

// --- attributes

#define DS_GETTER(name) PyObject* name([[maybe_unused]] PyObject* self, void*)
DS_GETTER(get_shape) { return make_size(cell_of(self).sizes); }
DS_GETTER(get_dtype) { return wrap_dtype(cell_of(self).dtype); }
DS_GETTER(get_ndim) { return PyLong_FromLong(cell_of(self).sizes.size()); }
DS_GETTER(get_requires_grad) { return PyBool_FromLong(unwrap(self).requires_grad()); }
DS_GETTER(get_is_leaf) {
  return guarded([&] { return PyBool_FromLong(unwrap(self).is_leaf()); });
}
DS_GETTER(get_itemsize) { return PyLong_FromLongLong(size_of(cell_of(self).dtype)); }
DS_GETTER(get_nbytes) { return PyLong_FromLongLong(unwrap(self).nbytes()); }
DS_GETTER(get_version) { return PyLong_FromUnsignedLong(unwrap(self).version()); }
DS_GETTER(get_retains_grad) {
  const Cell& c = cell_of(self);
  return PyBool_FromLong(c.grad_meta && c.grad_meta->retain_hook);
}
DS_GETTER(get_is_inference) { return PyBool_FromLong(cell_of(self).inference); }
DS_GETTER(get_base) {
  const Cell& c = cell_of(self);
  return wrap(c.grad_meta ? c.grad_meta->base : Tensor());
}
DS_GETTER(get_T) {
  return guarded([&] {
    const Tensor t = unwrap(self);
    Dims order;
    for (int i = t.dim() - 1; i >= 0; --i) order.push_back(i);
    return wrap(permute(t, order));
  });
}
DS_GETTER(get_mT) {
  return guarded([&] {
    const Tensor t = unwrap(self);
    DS_CHECK(t.dim() >= 2, "tensor.mT is only supported on matrices or batches of matrices. Got ", t.dim(),
             "-D tensor.");
    return wrap(transpose(t, -2, -1));
  });
}
DS_GETTER(get_grad) {
  return guarded([&] {
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
  });
}
DS_GETTER(get_data) {
  return guarded([&] { return wrap(detach(unwrap(self))); });
}

int set_grad(PyObject* self, PyObject* value, void*) {
  return guarded([&]() -> int {
    const Tensor t = unwrap(self);
    if (!value || value == Py_None) {
      if (t.cell()->grad_meta) t.cell()->grad_meta->grad = Tensor();
      if (mode().recorder) mode().recorder->record_set_grad(t, Tensor());
      return 0;
    }
    DS_CHECK_AS(TypeError, is_tensor(value), "assigned grad expected to be a Tensor or None but got grad of type ",
                Py_TYPE(value)->tp_name);
    const Tensor g = unwrap(value);
    DS_CHECK(!g.is(t), "can't assign Variable as its own grad");
    DS_CHECK(g.dtype() == t.dtype(), "assigned grad has data of a different type: ", name_of(g.dtype()),
             " for a tensor of ", name_of(t.dtype()));
    DS_CHECK(g.sizes() == t.sizes(), "assigned grad has data of a different size: ", g.sizes(),
             " for a tensor of size ", t.sizes());
    grad_meta(t).grad = g;
    if (mode().recorder) mode().recorder->record_set_grad(t, g);
    return 0;
  });
}

int set_data(PyObject* self, PyObject* value, void*) {
  return guarded([&]() -> int {
    DS_CHECK_AS(TypeError, value && is_tensor(value), "Variable data has to be a tensor");
    const Tensor t = unwrap(self), v = unwrap(value);
    refuse_capture("a tensor's .data is assigned");
    Cell& c = *t.cell();
    c.storage = v.storage();
    c.offset = v.offset();
    c.sizes = v.sizes();
    c.strides = v.strides();
    c.dtype = v.dtype();
    return 0;
  });
}

int set_requires_grad_attr(PyObject* self, PyObject* value, void*) {
  return guarded([&]() -> int {
    DS_CHECK_AS(TypeError, value && PyBool_Check(value), "requires_grad must be a bool");
    if ((value == Py_True) != unwrap(self).requires_grad()) refuse_capture("requires_grad is changed");
    set_requires_grad(unwrap(self), value == Py_True);
    return 0;
  });
}

PyGetSetDef getters[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {"shape", get_shape, nullptr, "Size of each dimension.", nullptr},
    {"dtype", get_dtype, nullptr, "Element type.", nullptr},
    {"ndim", get_ndim, nullptr, "Number of dimensions.", nullptr},
    {"requires_grad", get_requires_grad, set_requires_grad_attr, "Whether gradients flow to this tensor.", nullptr},
    {"is_leaf", get_is_leaf, nullptr, "True for tensors not made by a recorded op.", nullptr},
    {"grad", get_grad, set_grad, "Gradient accumulated by backward(), or None.", nullptr},
    {"data", get_data, set_data, "The same memory outside the graph; assigning swaps the memory.", nullptr},
    {"itemsize", get_itemsize, nullptr, "Bytes an element.", nullptr},
    {"nbytes", get_nbytes, nullptr, "Bytes of all elements.", nullptr},
    {"_version", get_version, nullptr, "Number of in-place writes to this memory.", nullptr},
    {"_base", get_base, nullptr, "The tensor this is a differentiable view of, or None.", nullptr},
    {"retains_grad", get_retains_grad, nullptr, "True after retain_grad() on a non-leaf.", nullptr},
    {"_is_inference", get_is_inference, nullptr, "Made in inference_mode.", nullptr},
    {"T", get_T, nullptr, "All dims reversed.", nullptr},
    {"mT", get_mT, nullptr, "The last two dims swapped.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

// --- plain methods

#define DS_METHOD(name) PyObject* name([[maybe_unused]] PyObject* self, [[maybe_unused]] PyObject* arg)
DS_METHOD(m_dim) { return PyLong_FromLong(cell_of(self).sizes.size()); }
DS_METHOD(m_numel) { return PyLong_FromLongLong(unwrap(self).numel()); }
DS_METHOD(m_item) {
  return guarded([&] { return item(unwrap(self)); });
}
DS_METHOD(m_data_ptr) {
  refuse_capture("data_ptr() is read");
  unwrap(self).storage()->expose();
  return PyLong_FromVoidPtr(unwrap(self).data_ptr());
}
DS_METHOD(m_storage_offset) { return PyLong_FromLongLong(cell_of(self).offset); }
DS_METHOD(m_is_contiguous) { return PyBool_FromLong(unwrap(self).is_contiguous()); }
DS_METHOD(m_element_size) { return PyLong_FromLongLong(size_of(cell_of(self).dtype)); }
DS_METHOD(m_storage_ptr) { return PyLong_FromVoidPtr(cell_of(self).storage->data()); }
DS_METHOD(m_storage_nbytes) { return PyLong_FromSize_t(cell_of(self).storage->bytes()); }
DS_METHOD(m_is_view) { return PyBool_FromLong(cell_of(self).grad_meta && cell_of(self).grad_meta->base.defined()); }
DS_METHOD(m_is_floating_point) { return PyBool_FromLong(is_floating(cell_of(self).dtype)); }
DS_METHOD(m_retain_grad) {
  return guarded([&]() -> PyObject* {
    retain_grad(unwrap(self));
    Py_RETURN_NONE;
  });
}
DS_METHOD(m_detach_) {
  return guarded([&] {
    const Tensor t = unwrap(self);
    DS_CHECK(!(t.cell()->grad_meta && t.cell()->grad_meta->base.defined()),
             "Can't detach views in-place. Use detach() instead.");
    refuse_capture("a tensor is detached in place");
    if (t.cell()->grad_meta) t.cell()->grad_meta->edge = {};
    t.cell()->requires_grad = false;
    Py_INCREF(self);
    return self;
  });
}

PyObject* m_size(PyObject* self, PyObject* const* args, Py_ssize_t nargs) {
  return guarded([&]() -> PyObject* {
    if (nargs == 0 || args[0] == Py_None) return make_size(cell_of(self).sizes);
    int64_t d;
    DS_CHECK_AS(TypeError, to_int(args[0], d), "size(): dim must be an int, got ", Py_TYPE(args[0])->tp_name);
    const Cell& c = cell_of(self);
    DS_CHECK_AS(IndexError, c.sizes.size() > 0, "Dimension specified as ", d, " but tensor has no dimensions");
    return PyLong_FromLongLong(c.sizes[wrap_dim("size", d, c.sizes.size())]);
  });
}

PyObject* m_stride(PyObject* self, PyObject* const* args, Py_ssize_t nargs) {
  return guarded([&]() -> PyObject* {
    const Cell& c = cell_of(self);
    if (nargs == 0 || args[0] == Py_None) {
      PyObject* out = checked(PyTuple_New(c.strides.size()));
      for (int i = 0; i < c.strides.size(); ++i) PyTuple_SET_ITEM(out, i, PyLong_FromLongLong(c.strides[i]));
      return out;
    }
    int64_t d;
    DS_CHECK_AS(TypeError, to_int(args[0], d), "stride(): dim must be an int");
    return PyLong_FromLongLong(c.strides[wrap_dim("stride", d, c.strides.size())]);
  });
}

PyObject* m_requires_grad_(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return guarded([&]() -> PyObject* {
    const Py_ssize_t total = nargs + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0);
    const bool on = total == 0 || PyObject_IsTrue(args[0]) == 1;
    if (on != unwrap(self).requires_grad()) refuse_capture("requires_grad is changed");
    set_requires_grad(unwrap(self), on);
    Py_INCREF(self);
    return self;
  });
}

PyObject* m_copy_(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return guarded([&]() -> PyObject* {
    static_cast<void>(kwnames);
    DS_CHECK_AS(TypeError, nargs >= 1, "copy_() missing 1 required positional argument: 'src'");
    const Tensor source = is_tensor(args[0]) ? unwrap(args[0]) : number_tensor(args[0]);
    copy_(unwrap(self), source);
    Py_INCREF(self);
    return self;
  });
}

// Tensor._make_subclass(cls, data, require_grad=False)
PyObject* make_subclass(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return guarded([&]() -> PyObject* {
    const Py_ssize_t total = nargs + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0);
    DS_CHECK_AS(TypeError, total >= 2 && PyType_Check(args[0]) && is_tensor(args[1]),
                "_make_subclass(cls, data, require_grad=False)");
    const Tensor t = unwrap(args[1]).alias();
    if (total > 2) set_requires_grad(t, PyObject_IsTrue(args[2]) == 1);
    return wrap_as(reinterpret_cast<PyTypeObject*>(args[0]), t);
  });
}

template <class F>
PyCFunction as_function(F* f) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}
constexpr int kFast = METH_FASTCALL, kFastKeywords = METH_FASTCALL | METH_KEYWORDS;
PyMethodDef methods[] = {
    {"dim", m_dim, METH_NOARGS, "Number of dimensions."},
    {"ndimension", m_dim, METH_NOARGS, "Number of dimensions."},
    {"numel", m_numel, METH_NOARGS, "Number of elements."},
    {"nelement", m_numel, METH_NOARGS, "Number of elements."},
    {"item", m_item, METH_NOARGS, "The value of a one-element tensor as a Python number."},
    {"data_ptr", m_data_ptr, METH_NOARGS, "Address of the first element."},
    {"storage_offset", m_storage_offset, METH_NOARGS, "Offset into the storage, in elements."},
    {"element_size", m_element_size, METH_NOARGS, "Bytes an element."},
    {"_storage_ptr", m_storage_ptr, METH_NOARGS, "Address of the storage."},
    {"_storage_nbytes", m_storage_nbytes, METH_NOARGS, "Bytes of the storage."},
    {"_is_view", m_is_view, METH_NOARGS, "True for a differentiable view of another tensor."},
    {"is_floating_point", m_is_floating_point, METH_NOARGS, "True for floating dtypes."},
    {"retain_grad", m_retain_grad, METH_NOARGS, "Keep .grad for this non-leaf tensor."},
    {"detach_", m_detach_, METH_NOARGS, "Cut this tensor from its graph."},
    {"_is_contiguous", m_is_contiguous, METH_NOARGS, "True for row-major memory without gaps."},
    {"size", as_function(m_size), kFast, "Sizes, or the size of one dim."},
    {"stride", as_function(m_stride), kFast, "Strides in elements, or the stride of one dim."},
    {"requires_grad_", as_function(m_requires_grad_), kFastKeywords, "Set requires_grad in place."},
    {"copy_", as_function(m_copy_), kFastKeywords, "Overwrite with another tensor's values (broadcast, converted)."},
    {"_make_subclass", as_function(make_subclass), kFastKeywords | METH_STATIC, "A subclass object on data's memory."},
    {nullptr, nullptr, 0, nullptr},
};

Py_hash_t tensor_hash(PyObject* self) { return _Py_HashPointer(self); }

Py_ssize_t tensor_len(PyObject* self) {
  return guarded([&]() -> Py_ssize_t {
    const Cell& c = cell_of(self);
    DS_CHECK_AS(TypeError, c.sizes.size() > 0, "len() of a 0-d tensor");
    return c.sizes[0];
  });
}

PyMemberDef members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(TensorObject, dict), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TensorObject, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

#define DS_SLOT(id, f) \
  { id, reinterpret_cast<void*>(f) }
const PyType_Slot slots[] = {
    DS_SLOT(Py_tp_new, tensor_new),
    DS_SLOT(Py_tp_dealloc, tensor_dealloc),
    DS_SLOT(Py_tp_finalize, tensor_finalize),
    DS_SLOT(Py_tp_traverse, tensor_traverse),
    DS_SLOT(Py_tp_clear, tensor_clear),
    DS_SLOT(Py_tp_getset, getters),
    DS_SLOT(Py_tp_methods, methods),
    DS_SLOT(Py_tp_members, members),
    DS_SLOT(Py_tp_hash, tensor_hash),
    DS_SLOT(Py_mp_length, tensor_len),
    DS_SLOT(Py_mp_subscript, tensor_getitem),
    DS_SLOT(Py_mp_ass_subscript, tensor_setitem),
    {Py_tp_doc, const_cast<char*>("A multi-dimensional array on the CPU with automatic differentiation.")},
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

PyObject* wrap(Tensor t) {
  if (!t.defined()) Py_RETURN_NONE;
  Cell* cell = t.cell();
  if (!cell->python) {
    if (mode().recorder) mode().recorder->record_wrapped(t);
    return wrap_as(tensor_type, std::move(t));
  }
  auto* object = static_cast<PyObject*>(cell->python);
  if (cell->python_owned) {  // the cell's reference becomes the caller's, and the object holds the cell again
    cell->python_owned = false;
    cell->retain();
    return object;
  }
  Py_INCREF(object);
  return object;
}

PyObject* wrap_list(const TensorList& list, bool as_tuple) {
  const auto n = static_cast<Py_ssize_t>(list.size());
  PyObject* out = checked(as_tuple ? PyTuple_New(n) : PyList_New(n));
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (as_tuple)
      PyTuple_SET_ITEM(out, i, wrap(list[i]));
    else
      PyList_SET_ITEM(out, i, wrap(list[i]));
  }
  return out;
}

void bind_tensor(pybind11::module_& m) {
  std::vector<PyType_Slot> all(std::begin(slots), std::end(slots));
  add_operators(all);
  all.push_back({0, nullptr});
  PyType_Spec spec = {"deepseek.Tensor", sizeof(TensorObject), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, all.data()};
  tensor_type = reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpec(&spec)));
  m.add_object("Tensor", reinterpret_cast<PyObject*>(tensor_type));
  host_hooks().release_object = release_owned_object;
}

}  // namespace deepseek::python
