// deepseek.dtype (one object a type), deepseek.Size, and Python numbers.
#include <complex>

#include "python/call_arguments.h"
#include "python/slots.h"

namespace deepseek::python {
namespace {

struct DTypeObject {
  PyObject_HEAD DType value;
};
PyTypeObject* dtype_type = nullptr;
PyTypeObject* size_type = nullptr;
PyObject* dtype_objects[kNumDTypes] = {};

DType value_of(PyObject* o) { return reinterpret_cast<DTypeObject*>(o)->value; }

PyObject* dtype_repr(PyObject* self) { return PyUnicode_FromFormat("deepseek.%s", name_of(value_of(self))); }
PyObject* dtype_reduce(PyObject* self) { return PyUnicode_FromString(name_of(value_of(self))); }
PyObject* dtype_itemsize(PyObject* self) { return PyLong_FromLongLong(size_of(value_of(self))); }
PyObject* dtype_is_floating(PyObject* self) { return PyBool_FromLong(is_floating(value_of(self))); }
PyObject* dtype_is_complex(PyObject* self) { return PyBool_FromLong(is_complex(value_of(self))); }
PyObject* dtype_is_signed(PyObject* self) {
  return PyBool_FromLong(value_of(self) != DType::kBool && value_of(self) != DType::kUInt8);
}
PyObject* dtype_name(PyObject* self) { return PyUnicode_FromString(name_of(value_of(self))); }

Attribute dtype_attributes[] = {
    attribute<dtype_itemsize>("itemsize", "Bytes an element."),
    attribute<dtype_is_floating>("is_floating_point", "True for floating dtypes."),
    attribute<dtype_is_complex>("is_complex", "True for complex dtypes, of which there are none yet."),
    attribute<dtype_is_signed>("is_signed", "True where negative values exist."),
    attribute<dtype_name>("name", "Name without the package."),
    {},
};
Method dtype_methods[] = {method<dtype_reduce>("__reduce__", nullptr), {}};

PyObject* size_repr(PyObject* self) {
  return PyUnicode_FromFormat("deepseek.Size(%R)", owned(PySequence_List(self)).get());
}
PyObject* size_numel(PyObject* self) {
  Dims d;
  DS_CHECK_AS(TypeError, to_dims(self, d), "Size.numel(): not a size");
  return PyLong_FromLongLong(numel_of(d));
}
Method size_methods[] = {method<size_numel>("numel", "Product of the sizes."), {}};

}  // namespace

PyObject* wrap_dtype(DType t) {
  PyObject* o = dtype_objects[static_cast<int>(t)];
  Py_INCREF(o);
  return o;
}
bool is_dtype(PyObject* o) { return Py_TYPE(o) == dtype_type; }
DType unwrap_dtype(PyObject* o) {
  if (is_dtype(o)) return value_of(o);
  if (o == reinterpret_cast<PyObject*>(&PyFloat_Type)) return DType::kFloat64;
  if (o == reinterpret_cast<PyObject*>(&PyBool_Type)) return DType::kBool;
  if (o == reinterpret_cast<PyObject*>(&PyLong_Type)) return DType::kInt64;
  fail<TypeError>("expected a deepseek.dtype (such as deepseek.float32), got ", type_name(o));
}

PyObject* make_size(const Dims& sizes) {
  Object out = owned(size_type->tp_alloc(size_type, sizes.size()));
  for (int i = 0; i < sizes.size(); ++i) PyTuple_SET_ITEM(out.get(), i, checked(PyLong_FromLongLong(sizes[i])));
  return out.release();
}

// --- names of types

std::string type_name(PyObject* o) {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(o));
  const auto text = [type](const char* attribute) -> std::string {
    const Object found = Object::steal(PyObject_GetAttrString(type, attribute));
    if (found && PyUnicode_Check(found.get()))
      if (const char* s = PyUnicode_AsUTF8(found.get())) return s;
    PyErr_Clear();  // a class may set these to anything
    return "";
  };
  const std::string module = text("__module__");
  const bool plain = module.empty() || module == "builtins" || module == "__main__" || module == "deepseek" ||
                     module.starts_with("deepseek.");
  const std::string_view name = Py_TYPE(o)->tp_name;  // with the module, in types that C defines
  return (plain ? "" : module + ".") + std::string(name.substr(name.rfind('.') + 1));
}

std::string wrong_int(PyObject* o) {
  return type_name(o) + (PyLong_Check(o) && !PyBool_Check(o) ? " that does not fit in 64 bits" : "");
}

// --- numbers

bool is_foreign_tensor(PyObject* o) {
  return !is_tensor(o) && PyObject_HasAttrString(reinterpret_cast<PyObject*>(Py_TYPE(o)), "__dlpack__");
}

bool is_number(PyObject* o) {
  if (PyFloat_Check(o) || PyLong_Check(o)) return true;
  if (PyComplex_CheckExact(o)) return true;  // refused by name where it becomes a tensor (Scalar::dtype)
  // NumPy scalars: numbers that are not arrays. Its complex ones answer on their own, as arrays. Other libraries'
  // tensors are none, though those of one element have __index__ and __float__.
  return PyNumber_Check(o) && !PySequence_Check(o) && !is_tensor(o) && !is_foreign_tensor(o) &&
         (Py_TYPE(o)->tp_as_number->nb_float || Py_TYPE(o)->tp_as_number->nb_index) &&
         std::string_view(Py_TYPE(o)->tp_name).find("complex") == std::string_view::npos;
}

namespace {
int64_t int64_of(PyObject* o) {
  int overflow = 0;
  const int64_t v = PyLong_AsLongLongAndOverflow(o, &overflow);
  if (overflow) fail("value cannot be converted to type int64_t without overflow");
  return v;
}

// After a conversion failed: an object's own TypeError says that it is no such number, which the caller puts in its own
// words. Anything else that its code raised goes on.
bool raised_type_error() {
  if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw PythonError();
  PyErr_Clear();
  return false;
}
}  // namespace

bool to_scalar(PyObject* o, Scalar& out) {
  if (PyBool_Check(o)) {
    out = Scalar(o == Py_True);
  } else if (PyFloat_Check(o)) {
    out = Scalar(PyFloat_AS_DOUBLE(o));
  } else if (PyLong_Check(o)) {
    out = Scalar(int64_of(o));
  } else if (PyComplex_CheckExact(o)) {
    out = Scalar(std::complex<double>(PyComplex_RealAsDouble(o), PyComplex_ImagAsDouble(o)));
  } else if (is_tensor(o)) {
    const Tensor t = unwrap(o);
    if (t.numel() != 1) return false;
    out = t.item();
  } else if (is_number(o)) {
    const char* name = Py_TYPE(o)->tp_name;
    if (std::string_view(name).find("bool") != std::string_view::npos) {
      out = Scalar(is_true(o));
    } else if (PyIndex_Check(o)) {
      out = Scalar(int64_of(owned(PyNumber_Index(o)).get()));
    } else {
      const double v = PyFloat_AsDouble(o);
      if (v == -1 && PyErr_Occurred()) return raised_type_error();
      out = Scalar(v);
    }
  } else {
    return false;
  }
  return true;
}

bool to_int(PyObject* o, int64_t& out) {
  if (PyLong_CheckExact(o)) {
    int overflow;
    out = PyLong_AsLongLongAndOverflow(o, &overflow);
    return overflow == 0;
  }
  if (PyBool_Check(o) || PyFloat_Check(o) || !PyIndex_Check(o)) {
    if (!PyBool_Check(o)) return false;
    out = o == Py_True;
    return true;
  }
  if (is_tensor(o) && (!is_exact(cell_of(o).dtype) || unwrap(o).numel() != 1)) return false;
  const Object i = Object::steal(PyNumber_Index(o));
  if (!i) return raised_type_error();
  int overflow;
  out = PyLong_AsLongLongAndOverflow(i.get(), &overflow);
  return overflow == 0;
}

bool to_dims(PyObject* o, Dims& out) {
  if (!PyTuple_Check(o) && !PyList_Check(o)) return false;
  out = Dims();
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(o); ++i) {
    int64_t v;
    PyObject* item = PySequence_Fast_GET_ITEM(o, i);
    if (PyBool_Check(item)) return false;
    if (PyLong_CheckExact(item)) {
      if (!to_int(item, v)) return false;
    } else {  // its __index__ may run any code, which may change the list
      const Object held = Object::borrow(item);
      if (!to_int(item, v)) return false;
    }
    out.push_back(v);
  }
  return true;
}

PyObject* scalar_to_python(const Scalar& s) {
  switch (s.category()) {
    case Category::kBool:
      return PyBool_FromLong(s.to_bool());
    case Category::kInteger:
      return PyLong_FromLongLong(s.to_int());
    case Category::kFloat:
      return PyFloat_FromDouble(s.to_double());
    case Category::kComplex:
      return PyComplex_FromDoubles(s.real(), s.imag());
  }
  __builtin_unreachable();
}

PyObject* item(const Tensor& t) { return scalar_to_python(t.item()); }

Tensor number_tensor(PyObject* o) {
  Scalar s;
  DS_CHECK_AS(TypeError, to_scalar(o, s), "expected a Tensor or a number, got ", given_for_tensor(o));
  return Tensor::wrapped(s);
}

void check_device(PyObject* o) {
  if (o == Py_None) return;
  const std::string name = str(o);
  DS_CHECK(name == "cpu" || name.starts_with("cpu:"), "device '", name,
           "' is not available: deepseek runs on the CPU only, use device='cpu'");
}

void bind_dtypes(PyObject* m) {
  dtype_type = new_type("deepseek.dtype", sizeof(DTypeObject), Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                        {slot<Py_tp_repr, dtype_repr>(), slot(dtype_attributes), slot(dtype_methods),
                         slot("The element type of a tensor.")});
  add_to_module(m, "dtype", Object::borrow(reinterpret_cast<PyObject*>(dtype_type)));
  for (int i = 0; i < kNumDTypes; ++i) {
    auto* o = PyObject_New(DTypeObject, dtype_type);
    if (!o) throw PythonError();
    o->value = static_cast<DType>(i);
    dtype_objects[i] = reinterpret_cast<PyObject*>(o);
    add_to_module(m, name_of(o->value), Object::borrow(dtype_objects[i]));
  }
  const Object bases = tuple_of(reinterpret_cast<PyObject*>(&PyTuple_Type));
  size_type =
      new_type("deepseek.Size", 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
               {slot<Py_tp_repr, size_repr>(), slot(size_methods), slot("The sizes of a tensor: a tuple of ints.")},
               bases.get());
  add_to_module(m, "Size", Object::borrow(reinterpret_cast<PyObject*>(size_type)));
}

}  // namespace deepseek::python
