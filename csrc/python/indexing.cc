// t[index] and t[index] = value: basic indices become views, tensors and lists become index / index_put.
#include "python/subclass.h"

namespace deepseek::python {
namespace {

struct Indexed {
  Tensor view;         // after all basic indices
  TensorList indices;  // of `view` in order, as index() takes them: a mask covers as many dims as it has, any other
                       // index one, an undefined one leaves its dim whole
  int covered = 0;     // dims of `view` that `indices` cover
  bool advanced = false;
};

bool is_mask(const Tensor& t) { return t.dtype() == DType::kBool || t.dtype() == DType::kUInt8; }
int dims_covered(const Tensor& index) { return index.defined() && is_mask(index) ? index.dim() : 1; }

// How many dims of the tensor an entry that is no tensor uses up.
int consumed_dims(PyObject* o) { return o == Py_None || o == Py_Ellipsis || PyBool_Check(o) ? 0 : 1; }

bool is_sequence_index(PyObject* o) { return PyList_Check(o) || PyTuple_Check(o); }

// What only a tensor can say: lists, and arrays and tensors of other libraries, though those of one element have
// __index__. NumPy's scalars are ints, its bool a mask.
bool is_tensor_index(PyObject* o) {
  if (PyLong_Check(o) || PySlice_Check(o) || o == Py_None || o == Py_Ellipsis) return false;
  if (is_sequence_index(o) || is_foreign_tensor(o)) return true;
  int64_t at;
  return PyObject_HasAttrString(o, "__array_interface__") && !to_int(o, at);
}

// An array, another library's tensor or a list as an index tensor.
Tensor index_tensor(PyObject* o) {
  if (PyList_Check(o))
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(o); ++i) {
      PyObject* entry = PyList_GET_ITEM(o, i);
      DS_CHECK_AS(IndexError, entry != Py_None && entry != Py_Ellipsis && !PySlice_Check(entry), "a list with ",
                  type_name(entry), " in it is no index; use a tuple: x[a, b] or x[tuple(entries)]");
    }
  const Tensor t = tensor_from_data(o, {});
  return t.numel() == 0 && is_floating(t.dtype()) ? to_dtype(t, DType::kInt64) : t;
}

// Bounds of any size are cut to what a tensor can have, as Python's own slices do.
Tensor apply_slice(const Tensor& t, int dim, PyObject* o) {
  auto* s = reinterpret_cast<PySliceObject*>(o);
  Py_ssize_t start, stop, step;
  if (PySlice_Unpack(o, &start, &stop, &step) < 0) throw PythonError();
  DS_CHECK_AS(ValueError, step > 0, "step must be greater than zero, got ", step);
  return slice(t, dim, s->start == Py_None ? Opt<int64_t>() : start, s->stop == Py_None ? Opt<int64_t>() : stop, step);
}

// `t` stands at dim `dim` of the view; returns the dim behind what it covers.
int set_index(Indexed& r, int dim, const Tensor& t) {
  for (; r.covered < dim; ++r.covered) r.indices.push_back(Tensor());
  r.indices.push_back(t);
  r.advanced = true;
  return r.covered += dims_covered(t);
}

Indexed resolve(const Tensor& self, PyObject* index) {
  std::vector<PyObject*> entries;
  if (PyTuple_Check(index)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(index); ++i) entries.push_back(PyTuple_GET_ITEM(index, i));
  } else {
    entries.push_back(index);
  }
  std::vector<Tensor> converted(entries.size());
  int used = 0, ellipses = 0;
  int64_t at;
  for (size_t i = 0; i < entries.size(); ++i) {
    PyObject* o = entries[i];
    if (is_tensor(o)) {
      converted[i] = unwrap(o);
    } else if (is_tensor_index(o)) {
      converted[i] = index_tensor(o);
    }
    if (converted[i].defined()) {
      const DType t = converted[i].dtype();
      DS_CHECK_AS(IndexError, is_exact(t), "tensors used as indices must be long, int, byte or bool tensors, got ",
                  name_of(t));
      used += dims_covered(converted[i]);
      if (t == DType::kUInt8 &&
          PyErr_WarnEx(PyExc_UserWarning,
                       "indexing with dtype deepseek.uint8 is deprecated, use a mask of dtype deepseek.bool instead",
                       1) < 0)
        throw PythonError();
    } else {
      used += consumed_dims(o);
    }
    ellipses += o == Py_Ellipsis;
  }
  DS_CHECK_AS(IndexError, used <= self.dim(), "too many indices for tensor of dimension ", self.dim());
  DS_CHECK_AS(IndexError, ellipses <= 1, "an index can only have a single ellipsis ('...')");

  Indexed r{self, {}, false};
  int dim = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    PyObject* o = entries[i];
    if (o == Py_None) {
      r.view = unsqueeze(r.view, dim++);
    } else if (o == Py_Ellipsis) {
      dim += self.dim() - used;
    } else if (PySlice_Check(o)) {
      r.view = apply_slice(r.view, dim++, o);
    } else if (PyBool_Check(o)) {
      r.view = unsqueeze(r.view, dim);
      dim = set_index(r, dim, full({1}, o == Py_True, DType::kBool));
    } else if (converted[i].defined()) {
      const Tensor& t = converted[i];
      if (t.dim() > 0) {
        dim = set_index(r, dim, t);
      } else if (is_mask(t)) {
        r.view = unsqueeze(r.view, dim);
        dim = set_index(r, dim, reshape(to_dtype(t, DType::kBool), {1}));
      } else {  // a 0-d integer tensor selects, as an int does
        r.view = select(r.view, dim, t.item().to_int());
      }
    } else if (to_int(o, at)) {
      DS_CHECK_AS(IndexError, r.view.dim() > 0,
                  "invalid index of a 0-dim tensor. Use `tensor.item()` to convert it to a Python number");
      r.view = select(r.view, dim, at);
    } else {
      DS_CHECK_AS(IndexError, !PyLong_Check(o), "index is out of range for dimension ", dim, " with size ",
                  r.view.size(dim), ": it does not even fit in 64 bits");
      fail<IndexError>(
          "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got ",
          type_name(o), ")");
    }
  }
  return r;
}

}  // namespace

PyObject* tensor_getitem(PyObject* self, PyObject* key) {
  PyTypeObject* type = tensor_type;
  if (!is_exact_tensor(self)) [[unlikely]] {
    Subclasses seen;
    seen.see(self);
    if (seen.hooked()) return call_hooks("__getitem__", self, key);
    type = seen.result();
  }
  const Tensor t = unwrap(self);
  int64_t at;
  if (PyLong_CheckExact(key) && to_int(key, at)) {
    DS_CHECK_AS(IndexError, t.dim() > 0,
                "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to "
                "convert a 0-dim tensor to a number");
    return wrap(select(t, 0, at), type);
  }
  const Indexed r = resolve(t, key);
  if (r.advanced) return wrap(index(r.view, r.indices), type);
  return wrap(r.view.is(t) ? expand(t, t.sizes()) : r.view, type);
}

int tensor_setitem(PyObject* self, PyObject* key, PyObject* value) {
  DS_CHECK_AS(TypeError, value != nullptr, "Tensor does not support deleting items");
  const Tensor t = unwrap(self);
  Tensor v;
  if (is_tensor(value))
    v = unwrap(value);
  else if (is_number(value))
    v = number_tensor(value);
  else
    v = tensor_from_data(value, Opt<DType>(t.dtype()));
  if (!is_reduced_float(t.dtype())) check_number_fits(v, t.dtype());
  Indexed r = resolve(t, key);
  if (r.advanced) {
    const Tensor source = v.dtype() == t.dtype() && !v.cell()->wrapped_number ? v : to_dtype(v, t.dtype());
    // One mask over the whole tensor and one constant: a select, without listing positions.
    if (!source.requires_grad() && r.indices.size() == 1 && r.indices[0].dtype() == DType::kBool && source.dim() == 0 &&
        r.indices[0].sizes() == r.view.sizes())
      copy_(r.view, where(r.indices[0], source, r.view));
    else
      index_put_(r.view, r.indices, source, false);
    return 0;
  }
  // Leading size-1 dims of the value are dropped, as in PyTorch.
  while (v.dim() > r.view.dim() && v.sizes()[0] == 1) v = squeeze(v, 0);
  copy_(r.view, v);
  return 0;
}

}  // namespace deepseek::python
