// Data in and out: nested Python sequences, NumPy arrays (shared memory), DLPack both ways, the buffer protocol.
#include <cstring>

#include "core/promotion.h"
#include "core/recorder.h"
#include "kernels/loops/copy.h"
#include "python/dlpack.h"
#include "python/python.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;

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
bool dtype_of_array(const py::object& array, DType& out) {
  const py::object dtype = array.attr("dtype");
  const std::string name = py::str(dtype.attr("name"));
  if (name == "bfloat16") return out = DType::kBFloat16, true;
  if (name == "float8_e4m3fn") return out = DType::kFloat8E4M3, true;
  if (name == "float8_e5m2") return out = DType::kFloat8E5M2, true;
  const char kind = py::str(dtype.attr("kind")).cast<std::string>()[0];
  const auto size = dtype.attr("itemsize").cast<int64_t>();
  for (const ArrayKind& k : kArrayKinds)
    if (k.kind == kind && k.size == size) return out = k.dtype, true;
  return false;
}

void release_object(void* o) {
  if (!Py_IsInitialized()) return;
  const PyGILState_STATE state = PyGILState_Ensure();
  Py_DECREF(static_cast<PyObject*>(o));
  PyGILState_Release(state);
}

bool is_ndarray(py::handle o) { return py::isinstance(o, py::module_::import("numpy").attr("ndarray")); }

Tensor from_numpy(const py::object& given) {
  DType dtype;
  // Not just anything with __array_interface__: a NumPy scalar's points to memory that is gone when the dict is.
  DS_CHECK_AS(TypeError, is_ndarray(given), "expected np.ndarray (got ", type_name(given.ptr()), ")");
  // Of a subclass the array itself, which says the truth about its memory.
  const py::object array = py::module_::import("numpy").attr("asarray")(given);
  DS_CHECK_AS(TypeError, dtype_of_array(array, dtype), "can't convert np.ndarray of type numpy.",
              std::string(py::str(array.attr("dtype"))),
              ". The only supported types are: float64, float32, float16, int64, int32, "
              "int16, int8, uint8, bool (and bfloat16, float8 from ml_dtypes).");
  const std::string order = py::str(array.attr("dtype").attr("byteorder"));
  DS_CHECK_AS(ValueError, order != ">",
              "given numpy array has byte order different from the native byte order. Conversion between byte orders "
              "is currently not supported.");
  Dims sizes, strides;
  for (const py::handle s : array.attr("shape")) sizes.push_back(s.cast<int64_t>());
  int i = 0;
  int64_t reach = 0;  // bytes to the last element
  for (const py::handle s : array.attr("strides")) {
    const auto bytes = s.cast<int64_t>();
    DS_CHECK_AS(ValueError, bytes % size_of(dtype) == 0,
                "given numpy array strides not a multiple of the element byte size. Copy the numpy array to reallocate "
                "the memory.");
    DS_CHECK_AS(
        ValueError, bytes >= 0,
        "At least one stride in the given numpy array is negative, and tensors with negative strides are not currently "
        "supported. (You can probably work around this by making a copy of your array with array.copy().)");
    strides.push_back(bytes / size_of(dtype));
    reach += (sizes[i++] - 1) * bytes;
  }
  const py::tuple data = array.attr("__array_interface__")["data"];
  void* pointer = PyLong_AsVoidPtr(data[0].ptr());
  if (!pointer && PyErr_Occurred()) throw PythonError();
  DS_CHECK_AS(ValueError, reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(size_of(dtype)) == 0,
              "the memory of the given numpy array is not aligned to its element size. Copy the numpy array to "
              "reallocate the memory.");
  const int64_t extent = numel_of(sizes) == 0 ? 0 : reach + size_of(dtype);
  Ref<Storage> storage =
      Storage::external(pointer, static_cast<size_t>(extent), release_object, py::object(array).release().ptr());
  if (data[1].cast<bool>()) storage->set_read_only();
  storage->expose();
  return Tensor::from_storage(std::move(storage), sizes, strides, 0, dtype);
}

// For values that are copied anyway: also scalars, other exporters of the array interface, unaligned memory, and other
// libraries' tensors, without their gradients.
Tensor values_of_array(PyObject* o) {
  py::object array = py::reinterpret_borrow<py::object>(o);
  if (!PyObject_HasAttrString(o, "__array_interface__")) {
    if (py::hasattr(array, "detach")) array = array.attr("detach")();
    return from_dlpack_producer(array);
  }
  if (!is_ndarray(array)) array = py::module_::import("numpy").attr("asarray")(array);
  if (!array.attr("flags").attr("aligned").cast<bool>()) array = array.attr("copy")();
  return from_numpy(array);
}

// What NumPy reads through __array_interface__; the array keeps this object, and so the memory, alive.
struct ArraySource {
  Tensor tensor;
};

std::string type_string(DType t) {
  for (const ArrayKind& k : kArrayKinds)
    if (k.dtype == t) return std::string(k.size == 1 ? "|" : "<") + k.kind + std::to_string(k.size);
  return std::string("|V") + std::to_string(size_of(t));  // viewed as ml_dtypes' type afterwards
}

py::dict array_interface(const ArraySource& source) {
  const Tensor& t = source.tensor;
  t.storage()->expose();
  py::tuple shape(t.dim()), strides(t.dim());
  for (int i = 0; i < t.dim(); ++i) {
    shape[i] = t.sizes()[i];
    int64_t bytes;
    if (__builtin_mul_overflow(t.strides()[i], size_of(t.dtype()), &bytes)) bytes = 0;  // nothing lies that far
    strides[i] = bytes;
  }
  py::dict d;
  d["version"] = 3;
  d["typestr"] = type_string(t.dtype());
  d["shape"] = shape;
  d["strides"] = strides;
  d["data"] = py::make_tuple(reinterpret_cast<uintptr_t>(t.data_ptr()), t.storage()->read_only());
  return d;
}

py::object to_numpy(const Tensor& self, bool force) {
  DS_CHECK(force || !self.requires_grad(),
           "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.");
  refuse_capture("a tensor becomes a NumPy array");
  const DType dtype = self.dtype();
  const bool extended = dtype == DType::kBFloat16 || is_float8(dtype);
  py::object extended_dtype;
  if (extended) {
    try {
      extended_dtype = py::module_::import("ml_dtypes").attr(name_of(dtype));
    } catch (py::error_already_set&) {
      fail<TypeError>(
          "Got unsupported ScalarType ", name_of(dtype),
          ": NumPy has no such dtype. Install ml_dtypes (pip install ml-dtypes), or convert with .float() first");
    }
  }
  const py::object array = py::module_::import("numpy").attr("asarray")(py::cast(ArraySource{self.alias()}));
  return extended ? array.attr("view")(extended_dtype) : array;
}

// --- nested sequences

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
// Not a class that has the attribute for its objects.
bool is_array(PyObject* o) {
  if (PyFloat_Check(o) || PyLong_Check(o) || PyUnicode_Check(o) || PyType_Check(o) || is_tensor(o)) return false;
  if (PyObject_HasAttrString(o, "__array_interface__")) return PyObject_HasAttrString(o, "strides");
  return PyObject_HasAttrString(o, "__dlpack__");
}

// NumPy's scalars are arrays without dims.
bool has_dims(PyObject* o) {
  if (is_sequence(o)) return true;
  if (is_tensor(o)) return cell_of(o).sizes.size() > 0;
  return is_array(o) && values_of_array(o).dim() > 0;
}

// A subclass's may raise, or say something else each time.
Py_ssize_t length_of(PyObject* sequence) {
  const Py_ssize_t n = PySequence_Size(sequence);
  if (n < 0) throw PythonError();
  return n;
}

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
      const py::object entry = py::reinterpret_steal<py::object>(checked(PySequence_GetItem(o, i)));
      const int before = s.sizes.size();
      const bool nested = has_dims(entry.ptr());
      DS_CHECK_AS(ValueError, nested || i == 0 || before == depth + 1, "expected sequence of length ",
                  before > depth + 1 ? s.sizes[depth + 1] : 0, " at dim ", depth + 1, " (got a number)");
      DS_CHECK_AS(TypeError, !(nested && i > 0 && before == depth + 1), "not a sequence at dim ", depth + 1,
                  ": numbers and sequences are mixed");
      scan(entry.ptr(), depth + 1, s);
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
      const py::object entry = py::reinterpret_steal<py::object>(checked(PySequence_GetItem(o, i)));
      ViewSpec s{out.sizes(), out.strides(), i * out.strides()[0]};
      s.sizes.erase(0);
      s.strides.erase(0);
      store(entry.ptr(), out.alias(s));
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

PyObject* tolist_of(const Tensor& t) {
  if (t.dim() == 0) return item(t);
  PyObject* list = checked(PyList_New(t.sizes()[0]));
  for (int64_t i = 0; i < t.sizes()[0]; ++i) {
    ViewSpec s{t.sizes(), t.strides(), i * t.strides()[0]};
    s.sizes.erase(0);
    s.strides.erase(0);
    PyList_SET_ITEM(list, i, tolist_of(t.alias(s)));
  }
  return list;
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

void bind_convert(py::module_& m) {
  // Accepted as every factory does; there is no pinned memory here.
  const auto make = [](const py::object& data, const py::object& dtype, const py::object& device, bool requires_grad,
                       [[maybe_unused]] bool pin_memory) {
    check_device(device.ptr());
    Opt<DType> t;
    if (!dtype.is_none()) t = unwrap_dtype(dtype.ptr());
    const Tensor out = tensor_from_data(data.ptr(), t);
    return requires_grad ? set_requires_grad(out) : out;
  };
  m.def("tensor", make, py::arg("data"), py::kw_only(), py::arg("dtype") = py::none(), py::arg("device") = py::none(),
        py::arg("requires_grad") = false, py::arg("pin_memory") = false,
        "A fresh tensor with the data's values; dtype inferred as PyTorch does. Data may be numbers, nested sequences, "
        "arrays, and other libraries' tensors (anything with __dlpack__).");
  m.def("_is_number", [](const py::object& o) { return is_number(o.ptr()); });
  m.def(
      "as_tensor",
      [](const py::object& data, const py::object& dtype, const py::object& device) {
        check_device(device.ptr());
        Tensor t;
        if (is_tensor(data.ptr()))
          t = unwrap(data.ptr());
        else if (is_array(data.ptr()))
          t = values_of_array(data.ptr());
        else
          t = tensor_from_data(data.ptr(), dtype.is_none() ? Opt<DType>() : Opt<DType>(unwrap_dtype(dtype.ptr())));
        return dtype.is_none() ? t : to_dtype(t, unwrap_dtype(dtype.ptr()));
      },
      py::arg("data"), py::arg("dtype") = py::none(), py::arg("device") = py::none(),
      "A tensor on the memory of a tensor, an array, or another library's tensor, where the dtype allows; a copy "
      "else.");
  m.def("from_numpy", from_numpy, py::arg("ndarray"), "A tensor on the array's memory.");
  py::class_<ArraySource>(m, "_ArraySource").def_property_readonly("__array_interface__", array_interface);
  m.def("_numpy", to_numpy, py::arg("self"), py::arg("force") = false, "A NumPy array on the tensor's memory.");
  m.def(
      "_tolist",
      [](const Tensor& t) {
        if (t.numel() > 1024) refuse_capture("tolist() of many numbers");
        return py::reinterpret_steal<py::object>(tolist_of(t));
      },
      "Nested lists of numbers.");
  m.def("_to_dlpack", [](const Tensor& t, bool versioned, bool copied) {
    refuse_capture("a tensor is exported");
    return py::reinterpret_steal<py::object>(to_dlpack(t, versioned, copied));
  });
  m.def("_from_dlpack_capsule", [](const py::object& capsule) { return from_dlpack_capsule(capsule.ptr()); });
  m.def("_from_dlpack_producer", from_dlpack_producer);
  m.def(
      "promote_types",
      [](const py::object& a, const py::object& b) {
        return py::reinterpret_steal<py::object>(
            wrap_dtype(promote_types(unwrap_dtype(a.ptr()), unwrap_dtype(b.ptr()))));
      },
      "The dtype two dtypes combine to.");
  m.def("can_cast", [](const py::object& a, const py::object& b) {
    return can_cast(unwrap_dtype(a.ptr()), unwrap_dtype(b.ptr()));
  });
  m.def(
      "result_type",
      [](const py::object& a, const py::object& b) {
        const auto operand = [](const py::object& o) {
          return is_tensor(o.ptr()) ? unwrap(o.ptr()) : number_tensor(o.ptr());
        };
        const Tensor in[] = {operand(a), operand(b)};
        return py::reinterpret_steal<py::object>(wrap_dtype(result_type(in)));
      },
      "The dtype an op on two operands gives.");
}

}  // namespace deepseek::python
