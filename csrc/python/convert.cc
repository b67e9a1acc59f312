#include "python/convert.h"

#include "core/dispatch/promotion.h"
#include "core/dispatch/recorder.h"
#include "kernels/index/masked.h"
#include "kernels/loops/copy.h"
#include "python/dlpack.h"
#include "python/slots.h"

namespace deepseek::python {
namespace {

struct ArrayKind {
  char kind;  // NumPy's dtype.kind
  int64_t size;
  DType dtype;
};
constexpr ArrayKind kArrayKinds[] = {
    {'b', 1, DType::kBool},    {'u', 1, DType::kUInt8},   {'i', 1, DType::kInt8},
    {'i', 2, DType::kInt16},   {'i', 4, DType::kInt32},   {'i', 8, DType::kInt64},
    {'f', 2, DType::kFloat16}, {'f', 4, DType::kFloat32}, {'f', 8, DType::kFloat64},
};

// bfloat16 and float8 arrays come from ml_dtypes, which names them but gives them kind 'V' or 'f'.
bool dtype_of_array(PyObject* array, DType& out) {
  const Object dtype = get_attribute(array, "dtype");
  const std::string name = str(get_attribute(dtype.get(), "name").get());
  if (name == "bfloat16") return out = DType::kBFloat16, true;
  if (name == "float8_e4m3fn") return out = DType::kFloat8E4M3, true;
  if (name == "float8_e5m2") return out = DType::kFloat8E5M2, true;
  const char kind = str(get_attribute(dtype.get(), "kind").get())[0];
  const int64_t size = int_of(get_attribute(dtype.get(), "itemsize").get());
  for (const ArrayKind& k : kArrayKinds)
    if (k.kind == kind && k.size == size) return out = k.dtype, true;
  return false;
}

void release_object(void* o) {
  if (!Py_IsInitialized()) return;
  const InterpreterLock lock;
  Py_DECREF(static_cast<PyObject*>(o));
}

bool is_ndarray(PyObject* o) { return checked(PyObject_IsInstance(o, from_module("numpy", "ndarray").get())) == 1; }

Object as_ndarray(PyObject* o) { return call(from_module("numpy", "asarray").get(), o); }

}  // namespace

Tensor from_numpy(PyObject* given) {
  DType dtype{};
  // Not just anything with __array_interface__: a NumPy scalar's points to memory that is gone when the dict is.
  DS_CHECK_AS(TypeError, is_ndarray(given), "expected np.ndarray (got ", type_name(given), ")");
  // Of a subclass the array itself, which says the truth about its memory.
  const Object array = as_ndarray(given);
  const Object array_dtype = get_attribute(array.get(), "dtype");
  DS_CHECK_AS(TypeError, dtype_of_array(array.get(), dtype), "can't convert np.ndarray of type numpy.",
              str(array_dtype.get()),
              ". The only supported types are: float64, float32, float16, int64, int32, "
              "int16, int8, uint8, bool (and bfloat16, float8 from ml_dtypes).");
  DS_CHECK_AS(ValueError, str(get_attribute(array_dtype.get(), "byteorder").get()) != ">",
              "given numpy array has byte order different from the native byte order. Conversion between byte orders "
              "is currently not supported.");
  Dims sizes, strides;
  const Object shape = get_attribute(array.get(), "shape"), steps = get_attribute(array.get(), "strides");  // tuples
  int64_t reach = 0;  // bytes to the last element
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(shape.get()); ++i) {
    sizes.push_back(int_of(PyTuple_GET_ITEM(shape.get(), i)));
    const int64_t bytes = int_of(PyTuple_GET_ITEM(steps.get(), i));
    DS_CHECK_AS(ValueError, bytes % size_of(dtype) == 0,
                "given numpy array strides not a multiple of the element byte size. Copy the numpy array to reallocate "
                "the memory.");
    DS_CHECK_AS(
        ValueError, bytes >= 0,
        "At least one stride in the given numpy array is negative, and tensors with negative strides are not currently "
        "supported. (You can probably work around this by making a copy of your array with array.copy().)");
    strides.push_back(bytes / size_of(dtype));
    reach += (sizes.back() - 1) * bytes;
  }
  const Object interface = get_attribute(array.get(), "__array_interface__"), key = to_python("data");
  const Object data = owned(PyObject_GetItem(interface.get(), key.get()));  // the address, and whether to read only
  void* pointer = PyLong_AsVoidPtr(owned(PySequence_GetItem(data.get(), 0)).get());
  if (!pointer && PyErr_Occurred()) throw PythonError();
  DS_CHECK_AS(ValueError, reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(size_of(dtype)) == 0,
              "the memory of the given numpy array is not aligned to its element size. Copy the numpy array to "
              "reallocate the memory.");
  const int64_t extent = numel_of(sizes) == 0 ? 0 : reach + size_of(dtype);
  Ref<Storage> storage =
      Storage::external(pointer, static_cast<size_t>(extent), release_object, Object(array).release());
  if (is_true(owned(PySequence_GetItem(data.get(), 1)).get())) storage->set_read_only();
  storage->expose();
  Tensor t = Tensor::from_storage(std::move(storage), sizes, strides, 0, dtype);
  if (dtype == DType::kBool && t.numel() > 0) kernels::check_bools("from_numpy", t.view());
  return t;
}

namespace {

// For values that are copied anyway: also scalars, other exporters of the array interface, unaligned memory, and other
// libraries' tensors, without their gradients.
Tensor values_of_array(PyObject* o) {
  Object array = Object::borrow(o);
  if (!has_attribute(o, "__array_interface__")) {
    if (has_attribute(o, "detach")) array = call_method(o, "detach");
    return from_dlpack_producer(array.get());
  }
  if (!is_ndarray(o)) array = as_ndarray(o);
  const Object flags = get_attribute(array.get(), "flags");
  if (!is_true(get_attribute(flags.get(), "aligned").get())) array = call_method(array.get(), "copy");
  return from_numpy(array.get());
}

// What NumPy reads through __array_interface__; the array keeps this object, and so the memory, alive.
struct ArraySource {
  PyObject_HEAD Tensor tensor;
};
PyTypeObject* array_source_type = nullptr;

void array_source_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  std::destroy_at(&reinterpret_cast<ArraySource*>(self)->tensor);
  type->tp_free(self);
  Py_DECREF(type);
}

Object array_source(const Tensor& t) {
  auto* o = PyObject_New(ArraySource, array_source_type);
  if (!o) throw PythonError();
  new (&o->tensor) Tensor(t);
  return Object::steal(reinterpret_cast<PyObject*>(o));
}

std::string type_string(DType t) {
  for (const ArrayKind& k : kArrayKinds)
    if (k.dtype == t) return std::string(k.size == 1 ? "|" : "<") + k.kind + std::to_string(k.size);
  return std::string("|V") + std::to_string(size_of(t));  // viewed as ml_dtypes' type afterwards
}

PyObject* array_interface(PyObject* self) {
  const Tensor& t = reinterpret_cast<ArraySource*>(self)->tensor;
  t.storage()->expose();
  const Object shape = owned(PyTuple_New(t.dim())), strides = owned(PyTuple_New(t.dim()));
  for (int i = 0; i < t.dim(); ++i) {
    PyTuple_SET_ITEM(shape.get(), i, checked(PyLong_FromLongLong(t.sizes()[i])));
    int64_t bytes;
    if (__builtin_mul_overflow(t.strides()[i], size_of(t.dtype()), &bytes)) bytes = 0;  // nothing lies that far
    PyTuple_SET_ITEM(strides.get(), i, checked(PyLong_FromLongLong(bytes)));
  }
  const Object address = owned(PyLong_FromVoidPtr(t.data_ptr()));
  Object d = owned(PyDict_New());
  const auto set = [&](const char* key, const Object& value) {
    checked(PyDict_SetItemString(d.get(), key, value.get()));
  };
  set("version", to_python(3));
  set("typestr", to_python(type_string(t.dtype())));
  set("shape", shape);
  set("strides", strides);
  set("data", tuple_of(address.get(), t.storage()->read_only() ? Py_True : Py_False));
  return d.release();
}

Attribute array_source_attributes[] = {attribute<array_interface>("__array_interface__", nullptr), {}};

}  // namespace

void bind_array_source(PyObject* m) {
  array_source_type =
      new_type("deepseek._C._ArraySource", sizeof(ArraySource), Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
               {slot<Py_tp_dealloc, array_source_dealloc>(), slot(array_source_attributes)});
  add_to_module(m, "_ArraySource", Object::borrow(reinterpret_cast<PyObject*>(array_source_type)));
}

PyObject* to_numpy(const Tensor& t, bool force) {
  DS_CHECK(force || !t.requires_grad(),
           "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.");
  refuse_capture("a tensor becomes a NumPy array");
  const DType dtype = t.dtype();
  Object extended;  // a dtype that NumPy itself does not have
  if (dtype == DType::kBFloat16 || is_float8(dtype)) {
    try {
      extended = from_module("ml_dtypes", name_of(dtype));
    } catch (const PythonError&) {
      PyErr_Clear();
      fail<TypeError>(
          "Got unsupported ScalarType ", name_of(dtype),
          ": NumPy has no such dtype. Install ml_dtypes (pip install ml-dtypes), or convert with .float() first");
    }
  }
  Object array = as_ndarray(array_source(t.alias()).get());
  if (extended) array = call_method(array.get(), "view", extended.get());
  return array.release();
}

// --- nested sequences

bool is_array(PyObject* o) {
  if (PyFloat_Check(o) || PyLong_Check(o) || PyUnicode_Check(o) || PyType_Check(o) || is_tensor(o)) return false;
  if (PyObject_HasAttrString(o, "__array_interface__")) return PyObject_HasAttrString(o, "strides");
  return PyObject_HasAttrString(o, "__dlpack__");
}

namespace {

struct Shape {
  Dims sizes;
  DType dtype = DType::kBool;
  bool any = false;
  bool tensors = false;
};

void join(Shape& s, DType t) {
  s.dtype = s.any ? promote_types(s.dtype, t) : t;
  s.any = true;
}

bool is_sequence(PyObject* o) { return PyList_Check(o) || PyTuple_Check(o) || PyRange_Check(o); }

// NumPy's scalars are arrays without dims.
bool has_dims(PyObject* o) {
  if (is_sequence(o)) return true;
  if (is_tensor(o)) return cell_of(o).sizes.size() > 0;
  return is_array(o) && values_of_array(o).dim() > 0;
}

// A subclass's may raise, or say something else each time.
Py_ssize_t length_of(PyObject* sequence) { return checked(PySequence_Size(sequence)); }

// A list that holds itself is followed as far as a tensor has dims.
void scan(PyObject* o, int depth, Shape& s) {
  if (is_sequence(o)) {
    const Py_ssize_t n = length_of(o);
    if (depth == s.sizes.size()) s.sizes.push_back(n);
    DS_CHECK_AS(ValueError, s.sizes[depth] == n, "expected sequence of length ", s.sizes[depth], " at dim ", depth,
                " (got ", n, ")");
    if (PyRange_Check(o)) {  // integers, which need not be looked at: there may be more than any memory holds
      DS_CHECK_AS(ValueError, n == 0 || s.sizes.size() == depth + 1, "expected sequence at dim ", depth + 1,
                  " (got a number)");
      return n > 0 ? join(s, DType::kInt64) : void();
    }
    for (Py_ssize_t i = 0; i < n; ++i) {
      const Object entry = owned(PySequence_GetItem(o, i));
      const int before = s.sizes.size();
      const bool nested = has_dims(entry.get());
      DS_CHECK_AS(ValueError, nested || i == 0 || before == depth + 1, "expected sequence of length ",
                  before > depth + 1 ? s.sizes[depth + 1] : 0, " at dim ", depth + 1, " (got a number)");
      DS_CHECK_AS(TypeError, !(nested && i > 0 && before == depth + 1), "not a sequence at dim ", depth + 1,
                  ": numbers and sequences are mixed");
      scan(entry.get(), depth + 1, s);
    }
    return;
  }
  if (is_tensor(o) || is_array(o)) {
    const Tensor t = is_tensor(o) ? unwrap(o) : values_of_array(o);
    for (int i = 0; i < t.dim(); ++i) {
      if (depth + i == s.sizes.size()) s.sizes.push_back(t.sizes()[i]);
      DS_CHECK_AS(ValueError, s.sizes[depth + i] == t.sizes()[i], "expected sequence of length ", s.sizes[depth + i],
                  " at dim ", depth + i, " (got ", t.sizes()[i], ")");
    }
    s.tensors = true;
    return join(s, t.dtype());
  }
  Scalar v;
  DS_CHECK_AS(TypeError, is_number(o) && to_scalar(o, v), "new(): invalid data type '", type_name(o), "'");
  const DType t = v.is_float() && PyFloat_CheckExact(o) ? default_dtype() : v.dtype();
  join(s, t);
}

// Reads again what scan() has measured: a subclass may show other contents now.
void store(PyObject* o, const Tensor& out) {
  constexpr const char* kChanged = "the data changed its shape while it was read";
  if (is_sequence(o)) {
    const Py_ssize_t n = length_of(o);
    DS_CHECK_AS(ValueError, out.dim() > 0 && n == out.sizes()[0], kChanged);
    for (Py_ssize_t i = 0; i < n; ++i) {
      const Object entry = owned(PySequence_GetItem(o, i));
      ViewSpec s{out.sizes(), out.strides(), i * out.strides()[0]};
      s.sizes.erase(0);
      s.strides.erase(0);
      store(entry.get(), out.alias(s));
    }
    return;
  }
  if (is_tensor(o) || is_array(o)) {
    const Tensor t = is_tensor(o) ? unwrap(o) : values_of_array(o);
    DS_CHECK_AS(ValueError, t.sizes() == out.sizes(), kChanged);
    return kernels::copy(out.view(), t.view());
  }
  Scalar v;
  DS_CHECK_AS(ValueError, to_scalar(o, v) && out.dim() == 0, kChanged);
  if (is_exact(out.dtype())) check_fits(v, out.dtype());
  alignas(8) char bytes[8];
  v.store(bytes);
  kernels::fill(out.view(), bytes, v.dtype());
}

Tensor copied(const Tensor& t, DType dtype) {
  Tensor out = Tensor::empty(t.sizes(), dtype);
  kernels::copy(out.view(), t.view());
  return out;
}

}  // namespace

Tensor tensor_from_data(PyObject* data, Opt<DType> dtype) {
  if (is_tensor(data)) refuse_capture("deepseek.tensor() copies a tensor; use clone()");
  if (is_tensor(data)) return copied(unwrap(data), dtype.value_or(cell_of(data).dtype));
  if (is_array(data)) {
    const Tensor t = values_of_array(data);
    const Tensor out = copied(t, dtype.value_or(t.dtype()));
    refuse_capture("a tensor is made from a NumPy array");
    return out;
  }
  Shape s;
  scan(data, 0, s);
  Tensor out = Tensor::empty(s.sizes, dtype.value_or(s.any ? s.dtype : default_dtype()));
  if (out.numel() > 0) store(data, out);
  if (mode().recorder) mode().recorder->record_constant(out);
  return out;
}

Tensor as_tensor(PyObject* data, Opt<DType> dtype) {
  const Tensor t = is_tensor(data)  ? unwrap(data)
                   : is_array(data) ? values_of_array(data)
                                    : tensor_from_data(data, dtype);
  return dtype ? to_dtype(t, *dtype) : t;
}

PyObject* to_list(const Tensor& t) {
  if (t.dim() == 0) return item(t);
  Object list = owned(PyList_New(t.sizes()[0]));
  for (int64_t i = 0; i < t.sizes()[0]; ++i) {
    ViewSpec s{t.sizes(), t.strides(), i * t.strides()[0]};
    s.sizes.erase(0);
    s.strides.erase(0);
    PyList_SET_ITEM(list.get(), i, checked(to_list(t.alias(s))));
  }
  return list.release();
}

}  // namespace deepseek::python
